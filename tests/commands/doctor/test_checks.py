"""Each check, with facts in which one thing is wrong; tests/system/test_doctor.py has really broken set-ups."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from racepool.broker import resource_watch
from racepool.commands.doctor import facts
from racepool.commands.doctor.checks import (
    CHECKS,
    Check,
    broker,
    findings,
    installation,
    machine,
    place,
    supervision,
    workers,
)
from racepool.commands.doctor.checks.broker import FILES_PER_WORKER, OWN_FILES
from racepool.commands.doctor.checks.supervision import FRESH_S
from racepool.commands.doctor.facts import Facts
from racepool.commands.doctor.finding import Level
from racepool.protocol import VERSION
from racepool.protocol.messages import PROTOCOL_VERSION
from racepool.protocol.settings import Settings
from tests.commands import stats as pictures

RUN = Path("/run/racepool")
NOW = pictures.NOON.timestamp()
VOLUME = facts.Volume("ext4", 2**40, 10**6)
BROKER = facts.MachineProcess(50, "racepool.broker", "S", NOW, open_files=30, file_limit=20_000)
WARNING, PROBLEM = Level.WARNING, Level.PROBLEM


def process(pid: int, module: str = "racepool.worker", state: str = "S") -> facts.MachineProcess:
    return facts.MachineProcess(pid, module, state, NOW)


def program(name: str, pid: int, group: str = "worker", state: str = "RUNNING") -> facts.Program:
    return facts.Program(name, group, state, pid, 60.0, "", (RUN / f"log/{name}.log",), process(pid))


PROGRAMS = (
    program("broker", 50, "broker"),
    program("watchdog", 60, "watchdog"),
    *(program(f"worker-{index}", 100 + index) for index in range(3)),
)
ABOVE = facts.Supervision("unix:///run/racepool/supervisor.sock", 40, PROGRAMS, {"broker": True, "worker": True})
LOCK = facts.Lock(RUN / "broker.lock", is_there=True, written_pid=50, holder_pid=50, holder=BROKER)
KEYS = facts.Keys(RUN / "keys", is_brokers=True, allowed=2, knows_us=True)
HERE = facts.Installation(VERSION, (3, 11, 7), "pyzmq 27", "Linux 6.1", "", (facts.Extra("plot", (), ""),))
LOG = facts.LogDirectory(RUN / "log", is_there=True, is_writable=True, used_bytes=9, volume=VOLUME)


def listening(pid: int) -> facts.Endpoint:
    """The stats socket, and who listens there by the kernel."""
    return facts.Endpoint("stats_endpoint", f"ipc://{RUN}/stats.ipc", "listening", pid)


def answered(**changes: object) -> facts.StatsAnswer:
    stats = pictures.pool(**changes)  # type: ignore[arg-type]
    return facts.StatsAnswer(took_ms=1.0, stats=stats, version=VERSION, protocol_version=PROTOCOL_VERSION)


def well(**changes: object) -> Facts:
    """The facts of a healthy pool, except these changes."""
    plain = Facts(
        environment=facts.Environment(Settings(dir=RUN, keys=RUN / "keys")),
        hard_file_limit=20_000,
        installation=HERE,
        clock=facts.Clock(NOW, 0.0),
        directory=facts.RunDirectory(RUN, is_there=True, volume=VOLUME),
        endpoints=(facts.Endpoint("endpoint", f"ipc://{RUN}/frontend.ipc", "listening"),),
        lock=LOCK,
        answer=answered(),
        broker=BROKER,
        workers=tuple(process(100 + index) for index in range(3)),
        supervision=ABOVE,
        memory=facts.Memory(2**36, 2**35, is_group=False),
        logs=(LOG,),
        dead=facts.DeadTaskCount(0, 0),
        keys=KEYS,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def placed(**changes: object) -> facts.RunDirectory:
    plain = facts.RunDirectory(RUN, is_there=True, volume=VOLUME)
    return replace(plain, **changes)  # type: ignore[arg-type]


def socket(state: str, *, held: bool = False) -> Facts:
    endpoint = facts.Endpoint("endpoint", f"ipc://{RUN}/frontend.ipc", state)
    return well(endpoints=(endpoint,), lock=LOCK if held else replace(LOCK, holder_pid=None, holder=None))


def given(**settings: object) -> facts.Environment:
    return facts.Environment(Settings(dir=RUN, **settings))


def said(**changes: object) -> Facts:
    return well(answer=answered(**changes))


def events(count: int, *, ahead_s: float = 0.0) -> list[object]:
    return [pictures.event("worker_lost", after_s=ahead_s - index) for index in range(count)]


def above(*programs: facts.Program, **changes: object) -> Facts:
    return well(supervision=replace(ABOVE, programs=programs, **changes))  # type: ignore[arg-type]


def with_open_files(open_files: int | None, limit: int) -> Facts:
    return well(broker=replace(BROKER, open_files=open_files, file_limit=limit))


def old(**changes: object) -> Facts:
    return well(answer=replace(answered(), **changes))  # type: ignore[arg-type]


CASES: list[tuple[Check, Facts, Level, str]] = [
    (installation.versions, well(installation=replace(HERE, python=(3, 10, 0))), PROBLEM, "Python 3.10.0"),
    (installation.versions, well(installation=replace(HERE, kernel="Darwin 23")), PROBLEM, "run it on Linux"),
    (installation.time_zone, well(installation=replace(HERE, zone_error="none")), PROBLEM, "pip install tzdata"),
    (place.settings, well(environment=facts.Environment(None, "RACEPOOL_X=1: bad")), PROBLEM, "RACEPOOL_X=1: bad"),
    (
        place.settings,
        well(environment=replace(given(), unknown=("RACEPOOL_WROKERS",))),
        WARNING,
        "RACEPOOL_WROKERS is set, but is no setting",
    ),
    (place.run_directory, well(directory=placed(is_there=False)), WARNING, "is not there"),
    (place.run_directory, well(directory=placed(refusal="others may enter it; chmod 700 it")), PROBLEM, "chmod 700"),
    (place.run_directory, well(directory=placed(volume=replace(VOLUME, kind="nfs4"))), WARNING, "is on nfs4"),
    (place.supervisor_socket_path, well(directory=placed(path=Path("/" + "x" * 90))), PROBLEM, "8 bytes too long"),
    (place.space, well(directory=placed(volume=replace(VOLUME, free_bytes=2**20))), PROBLEM, "1.0 MB free"),
    (place.space, well(directory=placed(volume=replace(VOLUME, free_files=0))), PROBLEM, "no more files"),
    (place.space, well(directory=placed(volume=replace(VOLUME, free_bytes=2**27))), WARNING, "134.2 MB free"),
    (place.space, well(directory=placed(volume=replace(VOLUME, free_files=9))), WARNING, "free some space"),
    (place.sockets, socket("missing"), WARNING, "not there: frontend.ipc"),
    (place.sockets, socket("missing", held=True), PROBLEM, "though a broker runs"),
    (place.sockets, socket("stale"), WARNING, "stale: frontend.ipc"),
    (place.sockets, socket("full"), PROBLEM, "accepts no connection"),
    (place.sockets, socket("no socket"), PROBLEM, "is no socket"),
    (place.sockets, socket("refused"), PROBLEM, "no process listens"),
    (place.sockets, socket("unreachable"), PROBLEM, "cannot be reached"),
    (
        place.sockets,
        well(environment=given(), endpoints=(facts.Endpoint("endpoint", "tcp://127.0.0.1:1", "listening"),)),
        WARNING,
        "tcp without keys",
    ),
    (place.lock, well(lock=replace(LOCK, holder_pid=None, holder=None)), PROBLEM, "does not hold"),
    (place.lock, well(lock=replace(LOCK, holder_pid=0, holder=None)), WARNING, "not visible here"),
    (place.lock, well(lock=replace(LOCK, holder=replace(BROKER, state="T"))), PROBLEM, "kill -CONT 50"),
    (place.lock, well(lock=replace(LOCK, holder=replace(BROKER, module="vi"))), PROBLEM, "is no broker"),
    (place.lock, well(lock=replace(LOCK, holder_pid=51), endpoints=(listening(50),)), PROBLEM, "but pid 50 answers"),
    (
        place.lock,
        well(lock=replace(LOCK, holder_pid=None, holder=None), endpoints=(listening(7),)),
        PROBLEM,
        "(pid 7) does not hold",
    ),
    (place.keys, well(keys=replace(KEYS, error="client.key: is not there; make it")), PROBLEM, "make it"),
    (place.keys, well(keys=replace(KEYS, unreadable=(RUN / "x.key",))), WARNING, "x.key holds no key"),
    (place.keys, well(keys=replace(KEYS, knows_us=False)), PROBLEM, "does not accept our own key"),
    (place.logs, well(logs=(replace(LOG, is_there=False),)), PROBLEM, "mkdir -m 700 /run/racepool/log"),
    (place.logs, well(logs=(replace(LOG, is_writable=False),)), PROBLEM, "we may not write"),
    (place.logs, well(logs=(replace(LOG, volume=replace(VOLUME, free_bytes=0)),)), PROBLEM, "0 bytes free"),
    (broker.answers, well(answer=facts.StatsAnswer(error="no broker; start one")), PROBLEM, "start one"),
    (broker.answers, old(stats=None, version="9.0"), PROBLEM, "it is 9.0"),
    (broker.answers, old(took_ms=900.0), WARNING, "answered in 900 ms"),
    (broker.versions, old(protocol_version=99), PROBLEM, "speaks protocol 99"),
    (broker.versions, old(version="9.0"), WARNING, "the broker is 9.0"),
    (broker.memory, said(broker=pictures.broker(rss_bytes=2**32)), WARNING, "4.3 GB of the 4.3 GB"),
    (broker.files, with_open_files(81, 100), PROBLEM, "81 of 100 open"),
    (broker.files, with_open_files(600, 1_000), WARNING, "600 of 1000 open"),
    (broker.files, with_open_files(10, 80), PROBLEM, "3 workers need all of them"),
    (broker.files, well(broker=None, hard_file_limit=200), PROBLEM, "supervisord does not start"),
    (broker.backlog, said(queue_depth=90, backlog_limit=100), PROBLEM, "90 of 100"),
    (broker.backlog, said(queue_depth=60, backlog_limit=100), WARNING, "60 of 100"),
    (broker.backlog, said(queue_depth=1, oldest_queued_s=40.0), WARNING, "the oldest for 40.0 s"),
    (broker.dead_tasks, well(dead=facts.DeadTaskCount(1, 0)), WARNING, "1 dead task is kept"),
    (broker.dead_tasks, well(dead=facts.DeadTaskCount(0, 2)), WARNING, "2 files of dead tasks"),
    (workers.number, said(total_workers=2, degraded=True), PROBLEM, "degraded: 2 of 3"),
    (workers.number, said(total_workers=4), WARNING, "more than the broker expects"),
    (workers.number, well(environment=given(workers=9)), WARNING, "RACEPOOL_WORKERS is 9 here"),
    (workers.frozen, well(workers=(process(101, state="T"),)), PROBLEM, "worker-1 (pid 101) is frozen"),
    (
        workers.heartbeats,
        said(workers=[pictures.worker("worker-9", last_heartbeat_age_s=1.5)]),
        WARNING,
        "worker-9's, of 1.5 s ago",
    ),
    (workers.heartbeats, said(workers=[pictures.worker("w", last_heartbeat_age_s=3.0)]), WARNING, "one long C call"),
    (workers.versions, said(workers=[pictures.worker("w", version="0.0.1")]), WARNING, "w is 0.0.1"),
    (workers.losses, said(recent_events=events(3)), WARNING, "3 were lost within the last minute"),
    (supervision.supervisor, well(supervision=None), WARNING, "no supervisord runs this broker"),
    (
        supervision.supervisor,
        well(supervision=None, broker=None, answer=facts.StatsAnswer(error="none; start one")),
        PROBLEM,
        "supervisord does not run",
    ),
    (supervision.supervisor, well(supervision=replace(ABOVE, programs=None)), PROBLEM, "does not answer"),
    (supervision.programs, above(program("worker-0", 0, state="FATAL")), PROBLEM, "worker-0 is FATAL"),
    (
        supervision.programs,
        above(replace(program("worker-0", 0, state="FATAL"), last_words="no module x")),
        PROBLEM,
        "FATAL; its last words: no module x",
    ),
    (
        supervision.programs,
        above(program("worker-0", 0, state="EXITED"), restarts={"worker": True}),
        WARNING,
        "worker-0 is EXITED",
    ),
    (supervision.programs, above(program("worker-0", 0, state="EXITED"), restarts={"worker": False}), PROBLEM, "start"),
    (
        supervision.programs,
        above(replace(program("worker-0", 1), uptime_s=1.0, ended_s_ago=1.0, last_words="no module x")),
        WARNING,
        "ended 1 s ago and was started again; its last words: no module x",
    ),
    (supervision.programs, above(program("worker-0", 0, state="STARTING")), WARNING, "worker-0 is STARTING"),
    (supervision.programs, above(replace(program("worker-0", 1), uptime_s=1.0)), WARNING, "less than 5 s ago"),
    (supervision.restarts, above(*PROGRAMS, restarts={"worker": False}), PROBLEM, "autorestart=true"),
    (supervision.watchdog, above(program("broker", 1, "broker")), WARNING, "supervisord has none"),
    (
        supervision.watchdog,
        above(replace(program("watchdog", 60, "watchdog"), process=process(60, state="T"))),
        PROBLEM,
        "kill -CONT 60",
    ),
    (machine.memory, well(memory=facts.Memory(2**36, 2**25, is_group=False)), PROBLEM, "33.6 MB of this machine"),
    (machine.memory, well(memory=facts.Memory(2**36, 2**32, is_group=True)), WARNING, "control group"),
    (machine.memory, well(memory=facts.Memory(2**30, 2**30, is_group=False)), WARNING, "the kernel would kill first"),
    (machine.memory, well(environment=given(broker_memory_limit=0)), WARNING, "no memory limit"),
    (
        machine.memory,
        well(environment=given(worker_memory_limit=2**35)),
        WARNING,
        "the limits of broker and workers together",
    ),
    (machine.clock, well(clock=facts.Clock(NOW, 30.0)), WARNING, "set by +30.0 s during this check"),
    (machine.clock, said(recent_events=events(1, ahead_s=60.0)), WARNING, "60 s ahead of ours"),
    (
        machine.clock,
        well(workers=(replace(process(100), started_at=NOW - 3_600),)),
        WARNING,
        "set by -3600 s since worker-0 started",
    ),
    (
        machine.workers_clocks,
        said(workers=[pictures.worker("far-0", started_at=pictures.NOON + timedelta(seconds=90))]),
        WARNING,
        "far-0's host is at least 90 s ahead",
    ),
    (machine.overdue, well(overdue=("keys",)), PROBLEM, "could not be checked in time"),
]


@pytest.mark.parametrize(
    ("check", "broken", "level", "words"), CASES, ids=[f"{case[0].__name__}: {case[3]}" for case in CASES]
)
def test_fault_is_found_and_comes_with_a_remedy(check: Check, broken: Facts, level: Level, words: str) -> None:
    found = [finding for finding in check(broken) if finding.level is level]

    assert len(found) == 1
    assert words in f"{found[0].text} {found[0].remedy}"
    assert level is not PROBLEM or found[0].remedy or check is place.settings


NO_FAULT: list[tuple[Check, Facts, str]] = [
    (broker.backlog, said(queue_depth=90, held_by_clients=80, backlog_limit=100), "10 of 100 tasks wait"),
    (place.space, well(directory=placed(volume=replace(VOLUME, free_files=None))), "is on ext4"),
    (machine.clock, well(workers=(process(999),)), "nor since the workers started"),
    (workers.heartbeats, said(workers=[pictures.worker("w", last_heartbeat_age_s=1.0)]), "of 1.0 s ago"),
    (supervision.programs, above(replace(program("worker-0", 1), uptime_s=FRESH_S)), "all run: worker-0"),
]


@pytest.mark.parametrize(("check", "healthy", "words"), NO_FAULT, ids=[case[2] for case in NO_FAULT])
def test_what_is_within_its_limits_is_no_fault(check: Check, healthy: Facts, words: str) -> None:
    (found,) = check(healthy)

    assert found.level is Level.OK
    assert words in found.text


def test_losses_of_more_than_a_minute_ago_do_not_count() -> None:
    lost = [pictures.event("worker_lost", after_s=-workers.RECENT_S + 0.5 - index) for index in range(3)]

    assert list(workers.losses(said(recent_events=lost))) == []


def test_every_check_is_shown_a_fault() -> None:
    never_at_fault: set[Callable[..., object]] = {installation.extras}

    assert {case[0] for case in CASES} == set(CHECKS) - never_at_fault


def test_nothing_is_wrong_with_a_pool_that_is_well() -> None:
    assert [finding for finding in findings(well()) if finding.level is not Level.OK] == []


def test_what_could_not_be_found_out_is_not_guessed() -> None:
    silent = Facts(facts.Environment(Settings(dir=RUN)), 20_000)

    found = findings(silent)

    assert {finding.check for finding in found} <= {"settings", "open files", "supervisor"}
    assert {finding.check for finding in findings(Facts(facts.Environment(None, "bad"), 9))} == {"settings"}


def test_missing_extra_is_no_fault_and_told_with_its_remedy() -> None:
    extra = facts.Extra("plot", ("matplotlib",), "pip install -e '/clone[plot]'")
    lacking = well(installation=replace(HERE, extras=(extra,)))

    (found,) = installation.extras(lacking)

    assert found.level is Level.OK
    assert "pip install -e '/clone[plot]'" in found.remedy


def test_descriptors_are_reckoned_as_the_broker_does() -> None:
    assert (OWN_FILES, FILES_PER_WORKER) == (resource_watch.OWN_FILES, resource_watch.FILES_PER_WORKER)
