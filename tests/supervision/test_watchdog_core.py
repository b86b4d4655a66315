"""The watchdog's decisions in fake time; the test plays the answers of supervisord and the broker."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from supervisor.states import ProcessStates

from racepool.supervision.watchdog_core import (
    FIRST_POKE_S,
    POKES,
    PROBE_INTERVAL_S,
    PROBE_PATIENCE_S,
    RESTART_INTERVAL_S,
    SILENT_PROBES,
    STOPPED_PROBES,
    UNKNOWN_WORKER_S,
    Action,
    KillProcess,
    ProbeBroker,
    ReadTable,
    SupervisedProcess,
    UnwatchProcess,
    WatchdogCore,
    WatchProcess,
)

MAX_SLEEP_S = 1.0
MAX_TURNS = 1_000  # in a minute there are about 120
BROKER = SupervisedProcess("broker:broker", "broker", 10, ProcessStates.RUNNING)
WORKER = SupervisedProcess("worker:worker-0", "worker", 20, ProcessStates.RUNNING)
OTHER = SupervisedProcess("web:web", "web", 30, ProcessStates.RUNNING)
GONE = {"pid": 0, "state": ProcessStates.EXITED}
STOPPED_FREEZE_S = STOPPED_PROBES * PROBE_PATIENCE_S
SILENT_FREEZE_S = SILENT_PROBES * PROBE_PATIENCE_S


@dataclass
class World:
    """What the core sees: time, supervisord's table, process states, and a broker that answers or does not."""

    table: dict[str, SupervisedProcess] = field(
        default_factory=lambda: {each.name: each for each in (BROKER, WORKER, OTHER)}
    )
    letters: dict[int, str] = field(default_factory=dict)
    now: float = 100.0
    is_supervisord_awake: bool = True
    is_broker_awake: bool = True
    answering_pid: int | None = BROKER.pid
    known_workers: tuple[int, ...] = (WORKER.pid,)
    done: list[tuple[float, Action]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = WatchdogCore(lambda pid: self.letters.get(pid, "S"))

    def change(self, process: SupervisedProcess, **fields: Any) -> None:  # noqa: ANN401  # as dataclasses.replace has it
        self.table[process.name] = replace(self.table[process.name], **fields)

    def freeze_broker(self, letter: str = "T") -> None:
        self.is_broker_awake = False
        self.letters[BROKER.pid] = letter

    def thaw_broker(self) -> None:
        self.is_broker_awake = True
        self.letters.clear()
        self.answer()

    def answer(self) -> None:
        self.perform(self.core.on_answer(self.answering_pid, self.known_workers, self.now))

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            self.done.append((self.now, action))
            match action:
                case ReadTable() if self.is_supervisord_awake:
                    self.perform(self.core.on_table(self.table.values(), self.now))
                case ProbeBroker() if self.is_broker_awake:
                    self.answer()
                case _:
                    pass

    def end(self, process: SupervisedProcess) -> None:
        pid = self.table[process.name].pid
        self.change(process, **GONE)
        self.perform(self.core.on_end(pid, self.now))
        self.tick()

    def tick(self) -> None:
        self.perform(self.core.on_tick(self.now))

    def run(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Lets time pass, and calls the core as the shell does."""
        end, turns = self.now + seconds, 0
        self.tick()
        while self.now < end and not until():
            turns += 1
            assert turns < MAX_TURNS, "it wakes up again and again, and time stands still"
            self.now = min(end, max(self.now, min(self.core.next_check(), self.now + MAX_SLEEP_S)))
            self.tick()

    def times(self, kind: type[Action], since: float = 0.0) -> list[float]:
        return [round(at - since, 6) for at, action in self.done if isinstance(action, kind) and at >= since]

    def kills(self) -> list[KillProcess]:
        return [action for _, action in self.done if isinstance(action, KillProcess)]


@pytest.fixture
def world() -> World:
    """A pool that has run for a minute."""
    made = World()
    made.run(60)
    assert made.kills() == []
    return made


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_every_process_of_the_table_is_watched() -> None:
    world = World()

    world.run(10)

    assert [action for _, action in world.done if isinstance(action, WatchProcess)] == [
        WatchProcess(10),
        WatchProcess(20),
        WatchProcess(30),
    ]
    assert len(world.times(ReadTable)) == 1, "nothing happened since the first"


def test_supervisord_is_asked_at_once_when_a_process_ends_and_until_it_is_back(world: World) -> None:
    ended_at = world.now

    world.end(WORKER)
    world.run(FIRST_POKE_S)
    world.change(WORKER, pid=21, state=ProcessStates.STARTING)
    world.run(10)

    assert world.times(ReadTable, ended_at) == [0, FIRST_POKE_S, 3 * FIRST_POKE_S]
    assert (ended_at + 3 * FIRST_POKE_S, WatchProcess(21)) in world.done
    assert (ended_at, UnwatchProcess(20)) in world.done


def test_a_second_death_is_pushed_like_the_first(world: World) -> None:
    for pid in (21, 22):
        world.end(WORKER)
        world.change(WORKER, pid=pid, state=ProcessStates.RUNNING)
        world.run(5)
    ended_at = world.now

    world.end(WORKER)

    assert world.times(ReadTable, ended_at) == [0]


def test_supervisord_is_not_asked_for_ever(world: World) -> None:
    ended_at = world.now

    world.end(WORKER)
    world.run(60)

    asked = world.times(ReadTable, ended_at)
    assert len(asked) == POKES
    assert asked[-1] == pytest.approx(FIRST_POKE_S * (2 ** (POKES - 1) - 1))
    assert asked[-1] > 1.0, "by then it has looked by itself"


@pytest.mark.parametrize("state", [ProcessStates.STOPPED, ProcessStates.FATAL])
def test_process_that_is_not_to_run_is_not_awaited(world: World, state: int) -> None:
    ended_at = world.now

    world.end(WORKER)
    world.change(WORKER, state=state)
    world.run(60)

    assert world.times(ReadTable, ended_at) == [0, FIRST_POKE_S]


def test_process_that_was_removed_is_not_awaited(world: World) -> None:
    ended_at = world.now

    world.end(WORKER)
    del world.table[WORKER.name]
    world.run(60)

    assert world.times(ReadTable, ended_at) == [0, FIRST_POKE_S]


def test_process_that_ends_right_after_its_start_is_started_at_supervisords_pace(world: World) -> None:
    world.end(WORKER)
    world.change(WORKER, pid=21, state=ProcessStates.RUNNING)
    world.run(FIRST_POKE_S)
    seen_at = world.now
    world.run(0.2)

    world.end(WORKER)
    world.run(5)

    assert world.times(ReadTable, seen_at)[1] == RESTART_INTERVAL_S


def test_end_that_the_table_tells_first_is_pushed_as_well(world: World) -> None:
    world.change(WORKER, **GONE)
    world.core.on_event(world.now)
    world.run(0.5)

    told_at = world.times(ReadTable)[1]
    assert world.times(ReadTable, told_at)[:3] == [0, 0, FIRST_POKE_S]
    assert world.core.on_end(WORKER.pid, world.now) == [UnwatchProcess(WORKER.pid)], "the pidfd tells it later"
    assert world.core.next_check() > world.now


def test_process_that_has_ended_is_not_watched_again_while_the_table_still_has_it(world: World) -> None:
    ended_at = world.now
    world.perform(world.core.on_end(WORKER.pid, world.now))

    world.run(0.05)

    assert len(world.times(ReadTable, ended_at)) >= 2
    assert world.times(WatchProcess, ended_at) == []


def test_a_burst_of_events_asks_once(world: World) -> None:
    for _ in range(50):
        world.core.on_event(world.now)
        world.run(0.001)
    asked_before = len(world.times(ReadTable))

    world.run(5)

    assert len(world.times(ReadTable)) == asked_before + 1


# --- the broker -------------------------------------------------------------------------------------------------------


def test_healthy_broker_is_asked_every_interval(world: World) -> None:
    since = world.now

    world.run(10)

    assert len(world.times(ProbeBroker, since)) == pytest.approx(10 / PROBE_INTERVAL_S, abs=1)
    assert world.kills() == []


@pytest.mark.parametrize("seconds", [3.0, 5.0])
@pytest.mark.parametrize("phase_s", [0.0, 0.3, 0.99])
def test_broker_that_was_frozen_for_seconds_is_left_alone(world: World, seconds: float, phase_s: float) -> None:
    world.run(phase_s)

    for _ in range(5):
        world.freeze_broker()
        world.run(seconds)
        world.thaw_broker()
        world.run(0.5)

    assert world.kills() == []


@pytest.mark.parametrize("phase_s", [0.0, 0.3, 0.99])
def test_broker_that_stays_frozen_is_killed_within_seven_seconds(world: World, phase_s: float) -> None:
    world.run(phase_s)
    heard_at = world.times(ProbeBroker)[-1]
    frozen_at = world.now

    world.freeze_broker()
    world.run(60, world.kills)

    assert STOPPED_FREEZE_S <= world.now - frozen_at <= STOPPED_FREEZE_S + PROBE_INTERVAL_S
    (kill,) = world.kills()
    assert (kill.event, kill.name, kill.pid) == ("broker_killed", BROKER.name, BROKER.pid)
    assert kill.silent_s == pytest.approx(world.now - heard_at)


def test_broker_that_is_silent_but_not_stopped_gets_more_time(world: World) -> None:
    frozen_at = world.now

    world.freeze_broker("R")
    world.run(60, world.kills)

    assert SILENT_FREEZE_S <= world.now - frozen_at <= SILENT_FREEZE_S + PROBE_INTERVAL_S
    assert SILENT_FREEZE_S + PROBE_INTERVAL_S < 15.0


def test_late_answers_are_signs_of_life(world: World) -> None:
    world.freeze_broker("R")

    for _ in range(20):
        world.run(SILENT_FREEZE_S - 1.0)
        world.answer()

    assert world.kills() == []


def test_broker_that_was_not_killed_after_all_is_judged_anew(world: World) -> None:
    world.freeze_broker()

    world.run(60)

    gaps = [
        later - earlier for earlier, later in zip(world.times(KillProcess), world.times(KillProcess)[1:], strict=False)
    ]
    assert gaps
    assert gaps == [pytest.approx(STOPPED_FREEZE_S)] * len(gaps)


def test_broker_under_a_debugger_is_left_alone(world: World) -> None:
    world.freeze_broker("t")

    world.run(60)

    assert world.kills() == []


def test_broker_that_never_answered_is_not_killed_for_its_silence() -> None:
    world = World(answering_pid=99)  # the stats endpoint is another pool's, for example

    world.run(60)
    world.freeze_broker("S")
    world.run(60)

    assert world.kills() == []


def test_broker_that_never_answered_is_killed_if_the_kernel_says_that_it_is_stopped() -> None:
    world = World()
    world.freeze_broker()

    world.run(60, world.kills)

    assert [kill.pid for kill in world.kills()] == [BROKER.pid]


def test_silence_after_a_refused_key_proves_nothing_until_somebody_answers_again(world: World) -> None:
    world.freeze_broker("S")
    world.core.on_refusal(world.now)

    world.run(60)
    assert world.kills() == []

    world.thaw_broker()
    world.freeze_broker("S")
    world.run(60, world.kills)
    assert [kill.pid for kill in world.kills()] == [BROKER.pid]


def test_stopped_broker_is_killed_though_our_key_was_refused(world: World) -> None:
    world.core.on_refusal(world.now)
    world.freeze_broker("T")

    world.run(60, world.kills)

    assert [kill.pid for kill in world.kills()] == [BROKER.pid]


def test_broker_gets_time_to_start() -> None:
    world = World()
    world.freeze_broker()

    world.run(60, world.kills)

    assert world.now - 100.0 >= STOPPED_FREEZE_S


def test_answer_that_cannot_be_read_is_a_sign_of_life(world: World) -> None:
    world.answering_pid = None

    world.run(60)
    assert world.kills() == []
    world.freeze_broker("S")
    world.run(60, world.kills)

    assert len(world.kills()) == 1


@pytest.mark.parametrize("state", [ProcessStates.STOPPING, ProcessStates.STOPPED, ProcessStates.STARTING])
def test_broker_that_supervisord_does_not_call_running_is_left_alone(world: World, state: int) -> None:
    world.freeze_broker()
    world.change(BROKER, state=state)
    world.core.on_event(world.now)

    world.run(60)

    assert world.kills() == []
    assert world.times(ProbeBroker, world.now - 50) == []


def test_next_broker_starts_with_a_clean_slate(world: World) -> None:
    world.freeze_broker()
    world.run(60, world.kills)
    (kill,) = world.kills()

    world.end(BROKER)
    world.change(BROKER, pid=11, state=ProcessStates.RUNNING)
    world.run(STOPPED_FREEZE_S - 0.5)
    assert world.kills() == [kill]
    assert world.done[-1][1] == ProbeBroker(11)
    world.letters.clear()
    world.run(60)
    assert world.kills() == [kill], "this one has never answered"
    world.answering_pid = 11
    world.thaw_broker()
    world.run(60)

    assert world.kills() == [kill]


def test_own_pause_counts_for_nobodys_silence(world: World) -> None:
    world.freeze_broker()
    world.run(PROBE_INTERVAL_S + 0.5)  # a probe is out

    world.now += 60.0  # all processes were stopped together, and the watchdog continues first
    world.run(PROBE_PATIENCE_S + 1.0)
    world.thaw_broker()
    world.run(60)

    assert world.kills() == []


@pytest.mark.parametrize("pause_s", [PROBE_PATIENCE_S / 2 + 0.1, PROBE_PATIENCE_S + 0.5])
def test_short_own_pauses_count_for_nobodys_silence_however_many(world: World, pause_s: float) -> None:
    world.freeze_broker()

    for _ in range(10):
        world.now += pause_s  # all processes were stopped together, and the watchdog continues first
        world.tick()

    assert world.kills() == []


def pause(world: World) -> None:
    world.now += 60.0
    world.tick()


def refuse(world: World) -> None:
    world.core.on_refusal(world.now)


def restart_broker(world: World) -> None:
    world.end(BROKER)
    world.change(BROKER, pid=11, state=ProcessStates.RUNNING)
    world.letters[11] = "T"
    world.core.on_event(world.now)
    world.run(0.2)


@pytest.mark.parametrize("happen", [pause, refuse, restart_broker])
def test_probes_that_failed_before_do_not_count_after_an_own_pause_a_refusal_or_a_restart(
    world: World, happen: Callable[[World], None]
) -> None:
    world.freeze_broker()
    world.run(PROBE_INTERVAL_S + PROBE_PATIENCE_S + 0.5)  # one probe failed, one short of a kill
    assert (world.core._failures, world.kills()) == (STOPPED_PROBES - 1, [])

    happen(world)
    since = world.now
    world.run(60, world.kills)

    assert world.now - since >= STOPPED_FREEZE_S - 0.5
    assert len(world.kills()) == 1


def test_next_probe_after_a_refusal_waits_for_an_interval(world: World) -> None:
    world.run(0.5)
    since = world.now

    world.core.on_refusal(world.now)
    world.run(PROBE_INTERVAL_S)

    assert world.times(ProbeBroker, since) == [PROBE_INTERVAL_S]


def test_broker_that_has_ended_is_asked_nothing_though_supervisord_does_not_answer(world: World) -> None:
    ended_at = world.now + 0.001
    world.now = ended_at
    world.is_supervisord_awake = False

    world.end(BROKER)
    world.run(60)

    assert len(world.times(ReadTable, ended_at)) == POKES
    assert world.times(ProbeBroker, ended_at) == []


# --- workers that no broker knows -------------------------------------------------------------------------------------


def test_stopped_worker_that_the_broker_does_not_know_is_killed(world: World) -> None:
    world.known_workers = ()
    world.letters[WORKER.pid] = "T"
    since = world.now

    world.run(60, world.kills)

    (kill,) = world.kills()
    assert (kill.event, kill.name, kill.pid) == ("worker_killed", WORKER.name, WORKER.pid)
    assert UNKNOWN_WORKER_S < world.now - since <= UNKNOWN_WORKER_S + 2 * PROBE_INTERVAL_S
    assert UNKNOWN_WORKER_S < kill.silent_s <= world.now - since


def test_stopped_worker_that_the_broker_knows_is_the_brokers_affair(world: World) -> None:
    world.letters[WORKER.pid] = "T"

    world.run(60)

    assert world.kills() == []


def test_worker_that_goes_on_is_left_alone(world: World) -> None:
    world.known_workers = ()

    for _ in range(5):
        world.letters[WORKER.pid] = "T"
        world.run(UNKNOWN_WORKER_S - 2.0)
        world.letters.clear()
        world.run(2.0)

    assert world.kills() == []


def test_worker_that_is_unknown_but_not_stopped_is_left_alone(world: World) -> None:
    world.known_workers = ()

    world.run(60)

    assert world.kills() == []


def test_other_programs_of_the_same_supervisord_are_left_alone(world: World) -> None:
    world.letters[OTHER.pid] = "T"

    world.run(60)

    assert world.kills() == []


def test_workers_are_not_judged_by_another_supervisords_broker(world: World) -> None:
    world.known_workers = ()
    world.letters[WORKER.pid] = "T"
    world.answering_pid = 99

    world.run(60)

    assert world.kills() == []
