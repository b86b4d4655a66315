from collections.abc import Iterator

import pytest
import zmq

from racepool.broker import intake as intake_module
from racepool.broker.intake import (
    FRAMES_PER_TURN,
    MAX_FRAMES_SKIPPED,
    MESSAGES_PER_TURN,
    Intake,
    OverlongMultipartError,
)
from racepool.protocol.messages import Payload
from racepool.protocol.sockets import MAX_FRAMES, Context, Socket, dealer, router
from tests.running import WaitUntil


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def heard() -> list[list[Payload]]:
    return []


@pytest.fixture
def intake(context: Context, endpoint: str, heard: list[list[Payload]]) -> Intake:
    bound = router(context, endpoint, send_limit=10, payload_limit=100)
    return Intake(bound, lambda _peer, frames, _source: heard.append(frames))


@pytest.fixture
def sender(context: Context, intake: Intake, endpoint: str) -> Socket:
    assert not intake.is_stuck
    return dealer(context, endpoint)


def turns_until_drained(intake: Intake) -> int:
    assert intake.socket.poll(5_000)
    turns = 1
    while not intake.drain():
        turns += 1
    return turns


def test_quota_of_a_turn_leaves_the_rest(
    intake: Intake, sender: Socket, heard: list[list[Payload]], wait_until: WaitUntil
) -> None:
    for index in range(MESSAGES_PER_TURN + 1):
        sender.send(str(index).encode())
    wait_until(lambda: intake.drain() or len(heard) >= MESSAGES_PER_TURN)

    wait_until(lambda: intake.drain() and len(heard) == MESSAGES_PER_TURN + 1)

    assert heard == [[str(index).encode()] for index in range(MESSAGES_PER_TURN + 1)]


def test_endless_message_is_skipped_in_slices(intake: Intake, sender: Socket, heard: list[list[Payload]]) -> None:
    sender.send_multipart([b"x"] * (MAX_FRAMES + 3 * FRAMES_PER_TURN))
    sender.send(b"next")

    assert intake.socket.poll(5_000)
    states = []
    while len(heard) < 2:
        intake.drain()
        states.append(intake.is_stuck)

    assert states[:3] == [True, True, False]
    assert heard == [[b"x"] * MAX_FRAMES, [b"next"]]


@pytest.mark.parametrize("count", [MAX_FRAMES - 1, MAX_FRAMES, MAX_FRAMES + 1, MAX_FRAMES + FRAMES_PER_TURN])
def test_message_after_one_of_any_length_is_heard_whole(
    intake: Intake, sender: Socket, heard: list[list[Payload]], count: int, wait_until: WaitUntil
) -> None:
    sender.send_multipart([b"x"] * count)
    sender.send_multipart([b"next", b"one"])

    wait_until(lambda: intake.drain() and len(heard) == 2)

    assert heard == [[b"x"] * min(count, MAX_FRAMES), [b"next", b"one"]]


def test_message_that_takes_too_long_to_skip_is_the_brokers_end(
    intake: Intake, sender: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "MAX_FRAMES_SKIPPED", 2 * FRAMES_PER_TURN)
    sender.send_multipart([b""] * 3 * FRAMES_PER_TURN)

    with pytest.raises(OverlongMultipartError, match=f"more than {2 * FRAMES_PER_TURN} frames"):
        turns_until_drained(intake)

    assert MAX_FRAMES_SKIPPED > 4_000_000


def test_skipped_frames_are_counted_for_each_message_on_its_own(
    intake: Intake, sender: Socket, heard: list[list[Payload]], monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(intake_module, "MAX_FRAMES_SKIPPED", 2 * FRAMES_PER_TURN)

    for _ in range(4):
        sender.send_multipart([b""] * (FRAMES_PER_TURN + 100))

    wait_until(lambda: intake.drain() and len(heard) == 4)
