import string
from dataclasses import fields
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from racepool.protocol import messages
from racepool.protocol.frames import (
    FROM_CLIENT,
    FROM_HEARTBEAT,
    FROM_WORKER,
    MAX_HEADER_BYTES,
    MAX_REFERENCE_BYTES,
    TO_CLIENT,
    TO_HEARTBEAT,
    TO_WORKER,
    BadFrameError,
    ForeignVersionError,
    Inlet,
    decode,
    encode,
    task_in,
)
from racepool.protocol.messages import (
    MAX_INT,
    MAX_NAME_CHARS,
    MAX_TEXT_BYTES,
    MIN_BEAT_S,
    PROTOCOL_VERSION,
    Answer,
    Assign,
    Cancel,
    Epoch,
    Heartbeat,
    Hello,
    Id,
    Name,
    Outcome,
    Payload,
    Ping,
    Ready,
    Result,
    Submit,
    Text,
    Welcome,
    Who,
)

INLETS: dict[str, Inlet[Any]] = {
    "FROM_CLIENT": FROM_CLIENT,
    "TO_CLIENT": TO_CLIENT,
    "FROM_WORKER": FROM_WORKER,
    "TO_WORKER": TO_WORKER,
    "FROM_HEARTBEAT": FROM_HEARTBEAT,
    "TO_HEARTBEAT": TO_HEARTBEAT,
}
KINDS = sorted({command.message for inlet in INLETS.values() for command in inlet.commands.values()}, key=str)
ID = Id(bytes(range(16)))
EPOCH = Epoch(b"epoch-01")
NAME = Name("worker-1")

VALUES: dict[object, st.SearchStrategy[Any]] = {
    Id: st.binary(min_size=16, max_size=16),
    Epoch: st.binary(min_size=8, max_size=8),
    Text: st.text(string.ascii_letters + string.digits + "-. é語", max_size=MAX_TEXT_BYTES // 3),
    Name: st.text(string.ascii_letters + string.digits + "-. é語", min_size=1, max_size=MAX_NAME_CHARS),
    Name | None: st.none() | st.text(string.ascii_letters, min_size=1, max_size=MAX_NAME_CHARS),
    int: st.integers(0, MAX_INT),
    bool: st.booleans(),
    bytes: st.binary(max_size=64),
    Payload: st.binary(max_size=64),
    Outcome: st.sampled_from(Outcome),
}


def any_of(kind: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: VALUES[hints[field.name]] for field in fields(kind)})


def header(*values: object) -> bytes:
    packed: bytes = msgpack.packb(list(values))
    return packed


# --- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_message_survives_the_wire(kind: type, data: st.DataObject) -> None:
    message = data.draw(any_of(kind))
    inlets = [inlet for inlet in INLETS.values() if kind.__name__.upper() in inlet.commands]

    assert inlets
    for inlet in inlets:
        assert decode(encode(message), inlet) == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_header_is_small(kind: type, data: st.DataObject) -> None:
    frames = encode(data.draw(any_of(kind)))

    assert len(frames) == (2 if "payload" in get_type_hints(kind) else 1)
    assert len(frames[0]) <= MAX_HEADER_BYTES


def test_every_message_of_the_module_may_come_in_somewhere() -> None:
    defined = {
        thing for thing in vars(messages).values() if hasattr(thing, "__dataclass_fields__") and isinstance(thing, type)
    }

    assert set(KINDS) == defined


def test_header_is_version_command_and_fields_in_order() -> None:
    frames = encode(Result(EPOCH, 7, ID, Outcome.OK, False, b"payload"))

    assert msgpack.unpackb(frames[0]) == [PROTOCOL_VERSION, "RESULT", EPOCH, 7, ID, "ok", False]
    assert frames[1] == b"payload"


def test_payload_is_passed_on_without_a_copy() -> None:
    payload = bytes(100_000)

    assert encode(Submit(ID, 1, 0, False, False, payload))[1] is payload
    assert decode([encode(Submit(ID, 1, 0, False, False, payload))[0], payload], FROM_CLIENT).payload is payload  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inlet", "commands"),
    [
        ("FROM_CLIENT", "ASKSTATS BYE CANCEL EXPIRE HELLO PING SUBMIT"),
        ("TO_CLIENT", "ANSWER BYE PONG REFUSED REJECT STATS TROUBLE WAITED WELCOME WHO"),
        ("FROM_WORKER", "BYE CANNOTSTART READY RESULT RETURNED"),
        ("TO_WORKER", "ASSIGN BYE RECALL RECYCLE WELCOME WHO"),
        ("FROM_HEARTBEAT", "HEARTBEAT"),
        ("TO_HEARTBEAT", "PONG WHO"),
    ],
)
def test_inlets_are_the_contract(inlet: str, commands: str) -> None:
    assert sorted(INLETS[inlet].commands) == commands.split()


# --- each rule of decode ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 99, MAX_INT])
def test_other_version_is_foreign_whatever_follows_it(version: int) -> None:
    with pytest.raises(ForeignVersionError, match=f"version {version}, this side speaks {PROTOCOL_VERSION}") as caught:
        decode([header(version, "WHATEVER", 1.5), b"", b""], FROM_CLIENT)

    assert caught.value.version == version


@pytest.mark.parametrize("version", [True, 1.0, "1", b"1", None, -1, 2**53, [1]])
def test_version_is_a_count(version: object) -> None:
    with pytest.raises(BadFrameError, match="no msgpack array of a protocol version") as caught:
        decode([header(version, "WHO")], TO_CLIENT)

    assert not isinstance(caught.value, ForeignVersionError)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        header(),
        header(PROTOCOL_VERSION),
        header(PROTOCOL_VERSION, "WHO") + b"\x00",
        header(PROTOCOL_VERSION, "WHO")[:-1],
        msgpack.packb({"version": 1}),
        msgpack.packb("WHO"),
        msgpack.packb([PROTOCOL_VERSION, "WHO", {"a": 1}]),
        msgpack.packb([PROTOCOL_VERSION, "WHO", msgpack.ExtType(1, b"x")]),
        header(PROTOCOL_VERSION, "WHO", *[0] * 15),
        header(PROTOCOL_VERSION, "W" * 257),
        header(PROTOCOL_VERSION, b"x" * 65),
        b"\x91" * 500,
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_what_is_no_header_is_refused(frame: bytes) -> None:
    with pytest.raises(BadFrameError, match="the header is no msgpack array"):
        decode([frame], TO_CLIENT)


def test_no_frames_are_no_message() -> None:
    with pytest.raises(BadFrameError, match="the header"):
        decode([], TO_CLIENT)


def test_header_is_bounded() -> None:
    fits = [PROTOCOL_VERSION, "HELLO", b"x" * 64, *["y" * 100] * 4]
    assert len(msgpack.packb(fits)) <= MAX_HEADER_BYTES < len(msgpack.packb([*fits, "y" * 100]))

    rest = "y" * (MAX_HEADER_BYTES - len(header(*fits)) - 1)
    assert len(header(*fits, rest)) == MAX_HEADER_BYTES

    with pytest.raises(BadFrameError, match="6 fields"):
        decode([header(*fits)], FROM_CLIENT)
    with pytest.raises(BadFrameError, match="client_id breaks its rule"):  # its length is right
        decode([header(*fits, rest)], FROM_CLIENT)
    with pytest.raises(BadFrameError, match="the header is no"):
        decode([header(*fits, rest + "y")], FROM_CLIENT)
    with pytest.raises(BadFrameError, match="the header is no"):
        decode([header(*fits, "y" * 100)], FROM_CLIENT)


def test_reference_is_bounded_and_a_payload_is_not() -> None:
    longest, task_id = bytes(MAX_REFERENCE_BYTES), ID

    def submit(payload: bytes, *, is_shared: bool) -> Submit:
        return Submit(task_id, 1, 0, again=False, is_shared=is_shared, payload=payload)

    def assign(payload: bytes, *, is_shared: bool) -> Assign:
        return Assign(EPOCH, 1, task_id, 1, 1, is_shared=is_shared, payload=payload)

    for message in (submit(longest, is_shared=True), submit(longest + b"x", is_shared=False)):
        assert decode(encode(message), FROM_CLIENT) == message
    by_value = assign(longest + b"x", is_shared=False)
    assert decode(encode(by_value), TO_WORKER) == by_value
    with pytest.raises(BadFrameError, match="SUBMIT: a reference has at most"):
        decode(encode(submit(longest + b"x", is_shared=True)), FROM_CLIENT)
    with pytest.raises(BadFrameError, match="ASSIGN: a reference has at most"):
        decode(encode(assign(longest + b"x", is_shared=True)), TO_WORKER)


@pytest.mark.parametrize("command", ["NONSENSE", "who", "", "WHO ", b"WHO", 7, None, ["WHO"]])
def test_unknown_command_is_refused(command: object) -> None:
    with pytest.raises(BadFrameError, match="unknown here"):
        decode([header(PROTOCOL_VERSION, command)], TO_CLIENT)


@pytest.mark.parametrize(
    ("message", "inlet"),
    [
        (Who(), "FROM_CLIENT"),
        (Ping(0), "TO_CLIENT"),
        (Submit(ID, 1, 0, False, False, b""), "FROM_WORKER"),
        (Ready(ID, 1, NAME, 1, NAME, 1), "FROM_HEARTBEAT"),
        (Heartbeat(ID, NAME, 1, NAME, 1, False, False, 1), "FROM_WORKER"),
        (Assign(EPOCH, 1, ID, 1, 1, False, b""), "TO_CLIENT"),
        (Welcome(EPOCH, 1, 2000), "TO_HEARTBEAT"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_message_of_another_socket_is_refused(message: Any, inlet: str) -> None:  # noqa: ANN401
    with pytest.raises(BadFrameError, match="unknown here"):
        decode(encode(message), INLETS[inlet])


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([*encode(Ping(0)), b""], "PING takes 1 frames, not 2"),
        (encode(Submit(ID, 1, 0, False, False, b""))[:1], "SUBMIT takes 2 frames, not 1"),
        ([*encode(Submit(ID, 1, 0, False, False, b"")), b""], "SUBMIT takes 2 frames, not 3"),
        ([header(PROTOCOL_VERSION, "PING")], "PING takes 1 fields, not 0"),
        ([header(PROTOCOL_VERSION, "PING", 0, 0)], "PING takes 1 fields, not 2"),
        ([header(PROTOCOL_VERSION, "BYE", None)], "BYE takes 0 fields, not 1"),
    ],
)
def test_frames_and_fields_are_counted(frames: list[bytes], complaint: str) -> None:
    with pytest.raises(BadFrameError, match=complaint):
        decode(frames, FROM_CLIENT)


BAD_VALUES: dict[object, list[object]] = {
    Id: [b"", b"x" * 15, b"x" * 17, "x" * 16, None, 0, list(range(16))],
    Epoch: [b"", b"x" * 7, b"x" * 9, "epoch-01", None, 0],
    Text: ["x" * 241, "é" * 121, "a\nb", "a\x1b[0m", b"worker", None, 1],
    Name: ["", "x" * 65, "a\nb", "a\x1b[0m", "a\u202eb", b"worker", None, 1],
    Name | None: ["", "x" * 65, "a\nb", b"worker", False, 0],
    int: [-1, 2**53, 2**64 - 1, 1.0, True, "1", None, [1]],
    bool: [0, 1, None, "true"],
    Outcome: ["", "OK", "fine", b"ok", None, 0],
}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        pytest.param(kind, field.name, value, id=f"{kind.__name__}.{field.name}={value!r:.20}")
        for kind in KINDS
        for field in fields(kind)
        if field.name != "payload"
        for value in BAD_VALUES[get_type_hints(kind)[field.name]]
    ],
)
def test_field_that_breaks_its_rule_is_named(kind: type, field: str, value: object) -> None:
    good: dict[object, object] = {
        Id: ID,
        Epoch: EPOCH,
        Name: NAME,
        Text: "why",
        Name | None: None,
        int: 1,
        bool: True,
        Outcome: "ok",
    }
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind) if each.name != "payload"]
    values = [value if name == field else good[hints[name]] for name in names]
    inlet = next(inlet for inlet in INLETS.values() if kind.__name__.upper() in inlet.commands)

    with pytest.raises(BadFrameError, match=f"{kind.__name__.upper()}: {field} breaks its rule"):
        decode(
            [header(PROTOCOL_VERSION, kind.__name__.upper(), *values), *([b""] if "payload" in hints else [])], inlet
        )


@pytest.mark.parametrize("count", [0, MAX_INT])
@pytest.mark.parametrize("name", ["x", "x" * MAX_NAME_CHARS, "語" * MAX_NAME_CHARS])
def test_limits_themselves_fit(count: int, name: str) -> None:
    message = Ready(ID, count, Name(name), count, Name(name), count)

    assert decode(encode(message), FROM_WORKER) == message


@pytest.mark.parametrize("worker", [None, Name("語" * MAX_NAME_CHARS)])
@pytest.mark.parametrize("us", [0, MAX_INT])
def test_cost_of_a_task_fits_whatever_it_was(us: int, worker: Name | None) -> None:
    message = Answer(ID, Outcome.QUEUE_TIMEOUT, MAX_INT, us, us, worker, b"")

    assert decode(encode(message), TO_CLIENT) == message


def test_flag_is_a_flag() -> None:
    assert decode(encode(Cancel(ID, kill=True)), FROM_CLIENT) == Cancel(ID, kill=True)
    assert decode(encode(Hello(ID, 0, 0, 0)), FROM_CLIENT) == Hello(ID, 0, 0, 0)


# --- hostile bytes ----------------------------------------------------------------------------------------------------

ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=70)
    | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
COMMANDS = st.sampled_from(sorted({name for inlet in INLETS.values() for name in inlet.commands}))
HOSTILE_FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=600),
        ANY_VALUE.map(msgpack.packb),
        st.builds(
            lambda command, values: header(PROTOCOL_VERSION, command, *values),
            COMMANDS,
            st.lists(ANY_VALUE, max_size=8),
        ),
    ),
    max_size=5,
)


@pytest.mark.parametrize("inlet", INLETS)
@given(frames=HOSTILE_FRAMES)
def test_hostile_frames_are_refused_or_a_message(inlet: str, frames: list[bytes]) -> None:
    try:
        message = decode(frames, INLETS[inlet])
    except BadFrameError:
        return
    assert decode(encode(message), INLETS[inlet]) == message


@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_flipped_bits_are_refused_or_a_message(data: st.DataObject, kind: type) -> None:
    frames = encode(data.draw(any_of(kind)))
    at = data.draw(st.integers(0, len(frames[0]) - 1))
    flipped = bytearray(frames[0])
    flipped[at] ^= data.draw(st.integers(1, 255))
    frames[0] = bytes(flipped)

    for inlet in INLETS.values():
        try:
            message = decode(frames, inlet)
        except BadFrameError:
            continue
        assert decode(encode(message), inlet) == message


@pytest.mark.parametrize(("liveness_ms", "beat_s"), [(2_000, 0.5), (40, MIN_BEAT_S), (1, MIN_BEAT_S), (0, MIN_BEAT_S)])
def test_peer_never_beats_faster_than_the_least_interval(liveness_ms: int, beat_s: float) -> None:
    assert Welcome(EPOCH, 1, liveness_ms).beat_s == beat_s


@pytest.mark.parametrize(
    ("frames", "task_id"),
    [
        ([header(PROTOCOL_VERSION, "SUBMIT", ID, -1)], ID),
        ([header(PROTOCOL_VERSION, "SUBMIT", b"short")], None),
        ([header(PROTOCOL_VERSION, "SUBMIT")], None),
        ([header(PROTOCOL_VERSION, "EXPIRE", ID, -1)], None),  # the broker may hold this task
        ([b"\xc1"], None),
        ([], None),
    ],
)
def test_only_a_broken_submit_tells_of_a_task(frames: list[bytes], task_id: Id | None) -> None:
    assert task_in(frames) == task_id
