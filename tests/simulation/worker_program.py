"""A worker process in the simulation: the real cores of its two threads, and a script instead of a transform."""

from collections.abc import Callable, Iterable
from math import inf
from typing import assert_never

from racepool.protocol.messages import (
    Assign,
    Heartbeat,
    Id,
    Message,
    Name,
    Outcome,
    Result,
    ToWorker,
)
from racepool.protocol.settings import Settings
from racepool.worker import core as worker_core
from racepool.worker import heartbeat
from tests.simulation.network import Link, Network, Port, Program
from tests.simulation.promises import WorkerProcess
from tests.simulation.stage import Stage

UNREADABLE = 0.2  # the part of references that cannot be read


class WorkerProgram(WorkerProcess):
    """The main thread of one worker process; `pulse` is the other thread."""

    def __init__(self, name: str, pid: int, stage: Stage, settings: Settings, *, is_local: bool) -> None:
        super().__init__(stage.clock)
        self.name = name
        self.pid = pid
        self.watchers: list[Program] = []
        self.results: list[Message] = []
        self.session: Id | None = None
        self.wants_to_end = False
        self.wants_recycling = False
        self.was_cut_off = False
        self.on_death: Callable[[], None] = lambda: None
        self._network = stage.network
        self._random = stage.random
        self._witness = stage.witness
        self._pid = pid if is_local else None
        self._finishes_at: float | None = None
        identity = worker_core.Identity(Name(name), pid, Name("1"), round(stage.clock.now * 1000))
        self.core = worker_core.WorkerCore(
            identity,
            lambda: Id(stage.random.randbytes(16)),
            liveness_s=settings.liveness,
            max_tasks=settings.max_tasks_per_worker,
        )
        self._liveness_s = settings.liveness
        self._link: Link | None = None
        self._perform(self.core.start(stage.clock.now))
        self.pulse = PulseProgram(self, stage.network, settings, self._pid)
        self.wake(stage.clock.now)

    @property
    def is_computing(self) -> bool:
        return self.core.task is not None

    @property
    def uses_cpu(self) -> bool:
        return self.is_running and self.is_computing

    def is_well_since(self, instant: float) -> bool:
        return super().is_well_since(instant) and not self.pulse.is_stalled

    def die(self) -> None:
        if self.is_dead:
            return
        self.is_dead = self.pulse.is_dead = True
        for link in (self._link, self.pulse.link):
            if link is not None:
                self._network.close(link)
        for watcher in self.watchers:
            watcher.wake(self.clock.now)
        self.on_death()

    def freeze(self) -> None:
        super().freeze()
        self.pulse.freeze()

    def resume(self) -> None:
        super().resume()
        self.pulse.resume()

    def on_resumed(self, stood_still_s: float) -> None:  # noqa: ARG002  # a worker judges nobody
        self._network.resumed(self)
        if self._finishes_at is not None:
            self.clock.at(self._finishes_at, self._finish)

    def repeat_result(self, which: int) -> None:
        """Sends an old result again, in the present session, as a faulty worker might."""
        if self.results and self._link is not None and not self.is_dead and self.frozen_since is None:
            self._network.send_to_broker(self._link, self.results[which % len(self.results)])

    def next_check(self) -> float:
        if self.is_computing or self._link is None:
            return inf
        arrives_at = self._link.to_dealer[0][0] if self._link.to_dealer else inf
        return min(self.core.next_check(), arrives_at)

    def turn(self) -> None:
        if not self.is_computing:
            self._look_up()
            self._work()
            if self.is_running and not self.is_computing:
                self._perform(self.core.on_tick(self.clock.now))

    def _work(self) -> None:
        while self.is_running and not self.is_computing:
            while (message := self._received()) is not None:
                self._perform(self.core.on_message(message, self.clock.now))
            begun = self.core.begin()
            if not begun:
                return
            self._perform(begun)

    def _received(self) -> ToWorker | None:
        return None if self._link is None or self.is_dead else next(self._link.received(self.clock.now), None)

    def _look_up(self) -> None:
        if self.pulse.lost == self.core.session.id:
            self._perform(self.core.on_session_lost(self.core.session.id, self.clock.now))
        if self.wants_to_end and not self.core.is_leaving and not self.is_dead:
            self._perform(self.core.on_terminate())

    def _perform(self, actions: Iterable[worker_core.Action]) -> None:
        for action in actions:
            match action:
                case worker_core.OpenSession(ready):
                    if self._link is not None:
                        self._network.close(self._link)
                    self._link = self._network.connect(Port.BACKEND, self, self._pid)
                    self.session = ready.incarnation
                    self._witness.process_of[ready.incarnation] = self
                    self._network.send_to_broker(self._link, ready)
                case worker_core.Send(message):
                    assert self._link is not None
                    self._network.send_to_broker(self._link, message)
                    self.results.append(message)
                    self.wants_recycling |= isinstance(message, Result) and message.recycle
                case worker_core.Execute(task):
                    self._execute(task)
                case worker_core.Exit():
                    assert self._link is not None
                    self._network.close(self._link, lingers=True)
                    self.die()
                case worker_core.Report():
                    pass
                case _:
                    assert_never(action)

    def _execute(self, task: Assign) -> None:
        if task.is_shared and self._random.random() < UNREADABLE:
            self._perform(self.core.on_finished(Outcome.UNREADABLE, b"", self.clock.now))
            return
        script = self._witness.wanted[int(task.payload)].script
        dies = script.ending == "kill" and self._witness.may_kill(int(task.payload))
        self._finishes_at = inf if script.ending == "hang" else self.clock.now + script.duration_s
        alarm_at = self.clock.now + task.run_timeout_ms / 1000 + self._liveness_s
        if script.holds_gil:
            self.pulse.is_stalled = True
            self.troubled_at = self.clock.now
        if dies:
            self._finishes_at = None
            self.clock.at(self.clock.now + script.duration_s, self.die)
        elif self._finishes_at < alarm_at:
            self.clock.at(self._finishes_at, self._finish)
        self.clock.at(alarm_at, lambda: self._on_alarm(task))

    def _on_alarm(self, task: Assign) -> None:
        """The kernel's timer. It ends a frozen process only when that runs again."""
        if self.core.task is not task or self.is_dead:
            return
        if self.frozen_since is not None:
            self.clock.at(self.clock.now + 0.1, lambda: self._on_alarm(task))
        else:
            self.die()

    def _finish(self) -> None:
        task = self.core.task
        if not self.is_running or task is None or self._finishes_at is None or self._finishes_at > self.clock.now:
            return
        self._finishes_at = None
        if self.pulse.is_stalled:
            self.pulse.is_stalled = False
            self.troubled_at = self.clock.now
            self.pulse.wake(self.clock.now)
        self._look_up()
        script = self._witness.wanted[int(task.payload)].script
        outcome = Outcome.RAISED if script.ending == "raise" else Outcome.OK
        self._perform(self.core.on_finished(outcome, b"result of " + bytes(task.payload), self.clock.now))
        if not self.is_dead:
            self.wake(self.clock.now)


class PulseProgram(Program):
    """The worker's heartbeat thread. It stalls while a C call of the main thread holds the interpreter lock."""

    def __init__(self, worker: WorkerProgram, network: Network, settings: Settings, pid: int | None) -> None:
        super().__init__(worker.clock)
        self.lost: Id | None = None
        self.is_stalled = False
        self.link: Link | None = None
        self._pid = pid
        self._worker = worker
        self._network = network
        self._core = heartbeat.HeartbeatCore(
            worker.core.session, self.clock.now, interval_s=settings.heartbeat_interval, liveness_s=settings.liveness
        )
        self.wake(self.clock.now)

    def on_resumed(self, stood_still_s: float) -> None:  # noqa: ARG002  # as above
        self._network.resumed(self)

    def next_check(self) -> float:
        arrives_at = self.link.to_dealer[0][0] if self.link is not None and self.link.to_dealer else inf
        return inf if self.is_stalled else min(self._core.next_check(), arrives_at)

    def turn(self) -> None:
        if self.is_stalled:
            return
        for message in [] if self.link is None else self.link.received(self.clock.now):
            lost = self._core.on_answer(message, self.clock.now)
            if lost is not None:
                self.lost = lost
                self._worker.wake(self.clock.now)
        core = self._worker.core
        for action in self._core.on_tick(core.session, self.clock.now):
            match action:
                case heartbeat.OpenSocket():
                    if self.link is not None:
                        self._network.close(self.link)
                    self.link = self._network.connect(Port.HEARTBEAT, self, self._pid)
                case heartbeat.Beat(session):
                    me = core.identity
                    beat = Heartbeat(
                        session.id,
                        me.name,
                        me.pid,
                        me.version,
                        me.started_at_ms,
                        busy=core.is_busy,
                        draining=self._worker.wants_to_end,
                        rss_bytes=1,
                    )
                    assert self.link is not None
                    self._network.send_to_broker(self.link, beat)
                case _:
                    assert_never(action)
