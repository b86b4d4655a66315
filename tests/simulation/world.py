"""A whole pool in fake time: one broker, three workers, two clients, their restarts, and the faults."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from math import inf
from random import Random

from racepool.broker.core import BrokerCore
from racepool.client.core import Limits
from racepool.client.task import UNIT_BYTES
from racepool.protocol.messages import Epoch, Id
from racepool.protocol.settings import Settings
from tests.simulation.broker_program import BrokerProgram
from tests.simulation.client_program import ClientProgram
from tests.simulation.network import Clock, Network, Program
from tests.simulation.promises import Caller, Script, Wanted, Witness
from tests.simulation.stage import Stage
from tests.simulation.worker_program import WorkerProgram

WORKERS, CLIENTS = 3, 2
MAX_ATTEMPTS = 3
LIVENESS_S = 2.0
CONNECT_TIMEOUT_S = 6.0
RESTARTS_S = (0.05, 0.4, 1.3)
FREEZES_S = (None, 0.3, 1.5)
SCRIPTS = (
    Script(0.002, "ok"),
    Script(0.05, "ok"),
    Script(0.4, "ok"),
    Script(0.01, "raise"),
    Script(1.6, "ok"),
    Script(0.02, "kill", deaths=1),
    Script(0.02, "kill", deaths=99),
    Script(0.5, "hang"),
    Script(2.9, "ok", holds_gil=True),
)
QUEUE_TIMEOUTS_S = (60.0, 60.0, 3.0, 0.5)
RUN_TIMEOUTS_S = (5.0, 5.0, 1.0)
QUICK = 10
RECENT_S = 0.05
SIZES = (100, 100, 40 * UNIT_BYTES)


@dataclass(frozen=True)
class Setting:
    """How the pool of one schedule is set up."""

    seed: int
    is_local: bool = True
    send_limit: int = 1_024
    backlog_limit: int = 100_000
    max_tasks: int = 0
    leaves_frozen: bool = False


@cache
def _settings(backlog_limit: int, max_tasks: int) -> Settings:
    return Settings.load(
        max_attempts=MAX_ATTEMPTS,
        heartbeat_interval=0.5,
        liveness=LIVENESS_S,
        backlog_limit=backlog_limit,
        max_tasks_per_worker=max_tasks,
    )


class World:
    """The pool. Each public method but `heal_and_finish` is one step of a schedule."""

    def __init__(self, setting: Setting) -> None:
        self.clock = Clock()
        self.random = Random(setting.seed)
        self.witness = Witness(self.clock, max_attempts=MAX_ATTEMPTS, liveness_s=LIVENESS_S)
        network = Network(self.clock, self.random, setting.send_limit)
        self._stage = Stage(self.clock, network, self.random, self.witness)
        self.broker: BrokerProgram | None = None
        self.epochs = 0
        self._setting = setting
        self._settings = _settings(setting.backlog_limit, setting.max_tasks)
        self._pids = count(100)
        self._caller_of: dict[Id, Caller] = {}
        self.start_broker()
        self.workers = [self._new_worker(index) for index in range(WORKERS)]
        self.clients = [self._new_client() for _ in range(CLIENTS)]

    # --- work ---------------------------------------------------------------------------------------------------------

    def submit(self, which: int, kind: int) -> None:
        client = self.clients[which % CLIENTS]
        if not client.is_running:
            return
        script = SCRIPTS[kind % len(SCRIPTS)]
        wanted = Wanted(
            number=len(self.witness.wanted), id=Id(self.random.randbytes(16)), caller=client, script=script,
            submitted_at=self.clock.now, queue_timeout_s=self.random.choice(QUEUE_TIMEOUTS_S),
            run_timeout_s=self.random.choice(RUN_TIMEOUTS_S), sessions_before=client.sessions,
            outages_before=self.witness.outages,
        )  # fmt: skip
        self.witness.add(wanted)
        client.submit(wanted, self.random.choice(SIZES))

    def submit_many(self, which: int, how_many: int) -> None:
        for _ in range(2 + how_many):
            self.submit(which, self.random.randrange(3))

    def submit_quick(self, which: int, kind: int) -> None:
        """Tasks so short that workers prefetch them, and among them one of another kind."""
        odd = self.random.randrange(QUICK)
        for index in range(QUICK):
            self.submit(which, kind if index == odd else 0)

    def cancel(self, which: int, how: int) -> None:
        """Cancels an unresolved task, or one that was cancelled before: the second time may be with `kill`."""
        wanted = [one for one in self.witness.wanted if one.caller.is_running and one.end in (None, "cancelled")]
        if wanted:
            one = wanted[which % len(wanted)]
            client = next(client for client in self.clients if client is one.caller)
            client.cancel(one, kill=how % 2 == 1)

    def cancel_in_hand(self, which: int, how: int) -> None:
        """Like `cancel`, for a task that a worker has, or had a moment ago: as its task, prefetched, or recalled."""
        recent = self.clock.now - RECENT_S
        wanted = [one for one in self.witness.wanted if one.caller.is_running and one.end is None]
        in_hand = [one for one in wanted if one.in_hand_since is not None or one.let_go_at >= recent]
        if in_hand:
            one = in_hand[which % len(in_hand)]
            client = next(client for client in self.clients if client is one.caller)
            client.cancel(one, kill=how % 2 == 1)

    def ask_stats(self, which: int, _: int) -> None:
        client = self.clients[which % CLIENTS]
        if client.is_running:
            client.ask_stats()

    def pass_time(self, which: int, _: int) -> None:
        self.clock.run_until(self.clock.now + (0.001, 0.01, 0.05, 0.2, 0.6, 1.5, 2.5, 4.0)[which % 8])

    # --- faults -------------------------------------------------------------------------------------------------------

    def kill_worker(self, which: int, how_many: int) -> None:
        for offset in range(1 + how_many % WORKERS):
            self.workers[(which + offset) % WORKERS].die()

    def freeze_worker(self, which: int, how: int) -> None:
        self._freeze(self.workers[which % WORKERS], how)

    def resume_worker(self, which: int, _: int) -> None:
        self.workers[which % WORKERS].resume()

    def terminate_worker(self, which: int, _: int) -> None:
        worker = self.workers[which % WORKERS]
        worker.wants_to_end = True
        worker.wake(self.clock.now)

    def repeat_result(self, which: int, result: int) -> None:
        self.workers[which % WORKERS].repeat_result(result)

    def kill_broker(self, _: int, __: int) -> None:
        if self.broker is not None:
            self.broker.die()
            self.broker = None
            self.clock.at(self.clock.now + self.random.choice(RESTARTS_S), self.start_broker)

    def freeze_broker(self, _: int, how: int) -> None:
        if self.broker is not None:
            self.witness.outages += 1
            self._freeze(self.broker, how)

    def resume_broker(self, _: int, __: int) -> None:
        if self.broker is not None:
            self.broker.resume()

    def terminate_broker(self, _: int, __: int) -> None:
        if self.broker is not None and self.broker.is_running:
            self.broker.terminate()

    def freeze_client(self, which: int, how: int) -> None:
        self._freeze(self.clients[which % CLIENTS], how)

    def resume_client(self, which: int, _: int) -> None:
        self.clients[which % CLIENTS].resume()

    def cut_line(self, which: int, _: int) -> None:
        """Cuts the line of a client, a worker, or a worker's heartbeats. A local socket cannot be cut."""
        if not self._setting.is_local:
            lines: list[tuple[Program, Program]] = [(client, client) for client in self.clients]
            lines += [(worker, dealer) for worker in self.workers for dealer in (worker, worker.pulse)]
            program, dealer = lines[which % len(lines)]
            program.troubled_at = self.clock.now
            if isinstance(dealer, WorkerProgram):
                dealer.was_cut_off = True
            self._stage.network.cut(dealer)

    def end_client(self, which: int, how: int) -> None:
        """The client dies or leaves, and another takes its place."""
        client = self.clients[which % CLIENTS]
        if how % 2 and client.is_running:
            client.leave()
        else:
            client.die()
        self.clients[which % CLIENTS] = self._new_client()

    def _freeze(self, program: Program, how: int) -> None:
        """Freezes it for a while, or until it is resumed."""
        program.freeze()
        for_s = FREEZES_S[how % len(FREEZES_S)]
        if for_s is not None:
            self.clock.at(self.clock.now + for_s, program.resume)

    # --- the promise --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """The cores' own invariants."""
        assert self.broker is None or self.broker.core.audit() == []
        for client in self.clients:
            assert client.core.audit() == []
        for worker in self.workers:
            assert worker.core.audit() == []

    def heal_and_finish(self) -> None:
        """From now on nothing goes wrong: all unresolved tasks must end in time, and the pool must be whole again."""
        kept_frozen = [
            worker for worker in self.workers if self._setting.leaves_frozen and self._is_broker_aware(worker)
        ]
        for program in (*self.workers, *self.clients, *([self.broker] if self.broker else [])):
            if program not in kept_frozen:
                program.resume()
        self._run_while(lambda: any(one.end is None and one.caller.is_running for one in self.witness.wanted))
        for one in self.witness.wanted:
            assert one.end is not None or not one.caller.is_running, f"task {one.number} never ended: {one}"
        self._run_while(lambda: bool(self._missing()))
        self.check()
        assert self._missing() == []

    def _is_broker_aware(self, worker: WorkerProgram) -> bool:
        """Whether this broker will kill the worker if it stays frozen."""
        if self.broker is None or not self.broker.is_running or self.broker.drain_until < inf:
            return False
        core = self.broker.core
        known = core.roster.workers.get(worker.session) if worker.session else None
        return known.is_local if known is not None else worker.session in core.frozen.sessions

    def _missing(self) -> list[str]:
        """What is missing until the pool is whole and at rest."""
        if self.broker is None:
            return ["a broker"]
        core = self.broker.core
        known = {worker.pid for worker in core.roster.workers.values()}
        wholeness = {
            "all workers, and no others": known == {worker.pid for worker in self.workers if not worker.is_dead},
            "all workers idle": core.roster.idle_count == len(known) == WORKERS,
            "all clients, and no others": core.clients.by_id.keys() == {client.id for client in self.clients},
            "all stats that were asked for": all(client.asked == client.told for client in self.clients),
            "no task that nobody waits for": not self.broker.books.open,
        }
        return [what for what, is_there in wholeness.items() if not is_there]

    def _run_while(self, condition: Callable[[], bool]) -> None:
        """Runs while the condition holds, but no longer than any exec() may take."""
        bound_s = max(QUEUE_TIMEOUTS_S) + MAX_ATTEMPTS * (max(RUN_TIMEOUTS_S) + 2 * LIVENESS_S)
        until = self.clock.now + bound_s
        while condition() and self.clock.now < until:
            self.clock.run_until(self.clock.now + 0.1)

    # --- restarts -----------------------------------------------------------------------------------------------------

    def start_broker(self) -> None:
        self.epochs += 1
        self.witness.outages += 1
        core = BrokerCore(self._settings, Epoch(self.epochs.to_bytes(8, "big")))
        self.broker = BrokerProgram(
            core, self._stage, self._caller_of, lambda: self.kill_broker(0, 0), can_share=self.random.random() < 0.7
        )

    def _new_worker(self, index: int) -> WorkerProgram:
        worker = WorkerProgram(
            f"worker-{index}", next(self._pids), self._stage, self._settings, is_local=self._setting.is_local
        )
        worker.on_death = lambda: self.clock.at(
            self.clock.now + self.random.choice(RESTARTS_S), lambda: self._replace(index)
        )
        return worker

    def _replace(self, index: int) -> None:
        self.workers[index] = self._new_worker(index)

    def _new_client(self) -> ClientProgram:
        id_ = Id(self.random.randbytes(16))
        client = ClientProgram(id_, self._stage, Limits(0.5, LIVENESS_S, CONNECT_TIMEOUT_S))
        self._caller_of[id_] = client
        return client
