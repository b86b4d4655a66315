"""The client inside whole programs: no exit, loop, fork or interrupt hangs or prints unexpected text."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.running import Running, StartPool, WaitUntil, environment
from tests.system.programs import ASYNC_INTERRUPTED, CHAINED, INTERRUPTED, PRELUDE, PYTHON, TRACEBACK, Ended, Program

pytestmark = pytest.mark.system
END_S = 10.0
OUTSTANDING = "futures = [pool.exec(LONG) for _ in range(100)]\n"
Start = Callable[..., Program]
EXITS = {
    "end of main": ("", 0, []),
    "sys.exit": ("sys.exit(3)", 3, []),
    "uncaught": ("raise RuntimeError('its own')", 1, [TRACEBACK, "RuntimeError: its own"]),
    "os._exit": ("os._exit(4)", 4, []),
}
LOOPS = {
    "asyncio": "new_event_loop, run = asyncio.new_event_loop, asyncio.run\n",
    "uvloop": "import uvloop\nnew_event_loop, run = uvloop.new_event_loop, uvloop.run\n",
}
every_loop = pytest.mark.parametrize(
    "loop",
    [
        "asyncio",
        pytest.param(
            "uvloop",
            marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop has no wheel for this Python"),
        ),
    ],
)


@pytest.fixture
def gate(scripted: Running, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Path]:
    """The file that long tasks wait for. After a program's end the broker has only the tasks that ran."""
    path = tmp_path / "gate"
    yield path
    path.touch()
    wait_until(lambda: (scripted.stats().queue_depth, scripted.stats().in_flight) == (0, 0))


@pytest.fixture
def start(gate: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts programs of this code: `start(code, running.env)`."""
    started: list[Program] = []

    def start(code: str, env: dict[str, str], *, before: str = "") -> Program:
        path = tmp_path / f"program-{len(started)}.py"
        path.write_text(before + PRELUDE + code)
        started.append(Program([*PYTHON, str(path)], path.with_suffix(".err"), env | {"GATE": str(gate)}))
        return started[-1]

    yield start
    for program in started:
        program.close()


@pytest.fixture
def nobody(run_dir: Path) -> dict[str, str]:
    """The environment for a pool without a broker."""
    return environment(run_dir)


def assert_ended(ended: Ended, out: list[str], err: Sequence[str] = (), code: int = 0) -> None:
    assert (ended.code, ended.out, ended.err) == (code, out, [*err])
    assert ended.seconds < END_S


# --- interpreter exit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", EXITS)
def test_program_ends_with_tasks_that_no_broker_ever_saw(start: Start, nobody: dict[str, str], way: str) -> None:
    leave, code, err = EXITS[way]

    program = start(f"{OUTSTANDING}say('ready')\n{leave}", nobody)

    assert_ended(program.end(), ["ready"], err, code)


@pytest.mark.parametrize("way", EXITS)
def test_program_ends_with_tasks_running(scripted: Running, start: Start, way: str) -> None:
    leave, code, err = EXITS[way]

    program = start(f"{OUTSTANDING}while pool.stats().in_flight < 3: pass\nsay('ready')\n{leave}", scripted.env)

    assert_ended(program.end(), ["ready"], err, code)


def test_programs_end_when_their_broker_was_killed(start_pool: StartPool, start: Start, wait_until: WaitUntil) -> None:
    running = start_pool(transform="transforms:scripted", workers=1)
    code = f"{OUTSTANDING}pool.stats()\nsay('ready')\ninput()\n"
    programs = [start(code + leave, running.env) for leave, _, _ in EXITS.values()]
    assert [program.line() for program in programs] == ["ready"] * len(EXITS)
    broker = Path(f"/proc/{running.stats().broker.pid}/exe")

    os.killpg(running.supervisord_pid, signal.SIGKILL)
    wait_until(lambda: not broker.exists())
    for program in programs:
        program.tell()

    for program, (_, exit_code, err) in zip(programs, EXITS.values(), strict=True):
        assert_ended(program.end(), [], err, exit_code)


def test_daemon_threads_that_wait_are_left_in_silence(start: Start, nobody: dict[str, str]) -> None:
    code = """
calls = [
    pool.stats,
    pool.wait_for_workers,
    lambda: pool.exec(LONG).result(),
    lambda: pool.exec(LONG).result(60),
    lambda: wait([pool.exec(LONG)]),
    lambda: asyncio.run(asyncio.wait_for(pool.exec(LONG), 60)),
]
for call in calls:
    threading.Thread(target=call, daemon=True).start()
pool.exec(LONG).add_done_callback(lambda future: future.result())
until(lambda: "unresolved=5" in repr(pool))
time.sleep(0.2)  # from a submission to its wait each thread needs a moment more, which nothing tells
say("ready")
"""

    assert_ended(start(code, nobody).end(), ["ready"])


def test_daemon_threads_that_go_on_submitting_are_left_in_silence(scripted: Running, start: Start) -> None:
    code = """
done = []
def go_on():
    while True:
        done.append(execute("r"))
        time.sleep(0.0005)
for _ in range(5):
    threading.Thread(target=go_on, daemon=True).start()
until(lambda: len(done) > 50)
say("ready")
"""

    programs = [start(code, scripted.env) for _ in range(4)]

    for program in programs:
        assert_ended(program.end(), ["ready"])


WORKING = """
def work():
    try:
        say(execute("late"))
    except BrokerUnavailableError:
        say("no broker")
pool.exec(race()).cancel()  # begins the client's thread: from Python 3.12 on none can begin once the main thread ends
executor = ThreadPoolExecutor(4)
for _ in range(4):
    executor.submit(work)
"""


def test_executor_threads_that_wait_get_their_results_before_the_end(scripted: Running, start: Start) -> None:
    """Python waits for these threads at its exit; the pool must work until they end."""
    assert_ended(start(WORKING, scripted.env).end(), ["late"] * 4)


def test_executor_threads_without_a_broker_end_with_the_connect_timeout(start: Start, nobody: dict[str, str]) -> None:
    program = start(WORKING, nobody | {"RACEPOOL_CONNECT_TIMEOUT": "0.3"})

    assert_ended(program.end(), ["no broker"] * 4)


def test_exit_hook_that_asks_for_a_result_meets_an_error(start: Start, nobody: dict[str, str]) -> None:
    hook = "import atexit\natexit.register(lambda: say(type(future.exception(10)).__name__))\n"

    program = start("future = pool.exec(LONG)", nobody, before=hook)

    assert_ended(program.end(), ["PoolClosedError"])


def test_callback_that_never_returns_delays_the_end_by_its_bound(scripted: Running, start: Start) -> None:
    code = """
entered = threading.Event()
pool.exec(race()).add_done_callback(lambda _: (entered.set(), time.sleep(60)))
entered.wait()
futures = [pool.exec(race()) for _ in range(100)]
say("ready")
"""

    assert_ended(start(code, scripted.env).end(), ["ready"])


# --- the I/O thread ---------------------------------------------------------------------------------------------------


def test_death_of_the_io_thread_is_loud(scripted: Running, start: Start, nobody: dict[str, str]) -> None:
    """The next session's socket finds no free descriptor. `pool` stays broken; a new ZmqPool works."""
    code = f"""
futures = [pool.exec(LONG) for _ in range(20)]
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), limits[1]))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError:
    pass
assert not wait(futures, 5).not_done
words = lambda error: "Too many open files" in str(error.__cause__)  # of the directory, or of the socket
say({{type(future.exception()).__name__ for future in futures}}, words(futures[0].exception()))
for _ in range(2):
    try:
        pool.exec(race())
    except PoolBrokenError as error:
        say(words(error))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
say(execute("new", on=ZmqPool("ipc://{scripted.dir}/frontend.ipc")))
"""
    ended = start(code, nobody).end()

    assert_ended(ended, ["{'PoolBrokenError'} True", "True", "True", "new"])


# --- fork -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["sys.exit", "os._exit"])
def test_fork_leaves_the_parent_its_tasks_and_the_child_pools_that_work(
    scripted: Running, start: Start, leave: str
) -> None:
    code = f"""
own = ZmqPool()
inherited = [one.exec(LONG) for _ in range(5) for one in (pool, own)]
if (child := os.fork()) == 0:
    signal.alarm(10)
    say("child", sum(isinstance(future.exception(5), PoolForkedError) for future in inherited))
    open_gate()
    say(execute("of-pool"), execute("of-own", on=own))
    {leave}(5)
say("parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sum(f.result()["id"] == "long" for f in inherited))
"""

    ended = start(code, scripted.env).end()

    assert_ended(ended, ["child 10", "of-pool of-own", "parent 5 10"])


@pytest.mark.parametrize(
    ("place", "inherited"),
    [
        ("guard", ""),  # the thread connects, and holds the pool's lock
        ("submit", ""),
        ("notify_all", "TransformError "),  # the I/O thread resolves a future, and holds its lock
    ],
)
def test_child_works_wherever_a_thread_of_the_parent_was_at_the_fork(
    scripted: Running, start: Start, place: str, inherited: str
) -> None:
    code = f"""
entered, go, kept = threading.Event(), threading.Event(), []
def stop(frame, event, _):
    if event == "call" and frame.f_code.co_name == "{place}" and not entered.is_set():
        entered.set()
        go.wait(10)
def raising():
    kept.append(pool.exec(race("raise")))
    return kept[0].exception()
threading.setprofile(stop)
late = ThreadPoolExecutor(1).submit(raising)
assert entered.wait(10)
if (child := os.fork()) == 0:
    signal.alarm(5)
    say(*(type(future.exception()).__name__ for future in kept), execute("child"))
    sys.exit(5)
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go.set()
say(type(late.result(10)).__name__, execute("parent"))
"""

    ended = start(code, scripted.env).end()

    assert_ended(ended, [f"{inherited}child", "5", "TransformError parent"])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works_after_the_parent_used_its_pool(scripted: Running, start: Start, method: str) -> None:
    code = f"""
import multiprocessing
def speak(race_id):
    say(execute(race_id))
if __name__ == "__main__":
    execute("parent")
    outstanding = pool.exec(race("sleep:0.1", "outstanding"))
    context = multiprocessing.get_context("{method}")
    with context.Pool(2) as processes:
        say(*processes.map(execute, "abcdefgh"))
    process = context.Process(target=speak, args=("process",))
    process.start()
    process.join()
    say(process.exitcode, outstanding.result()["id"])
"""

    ended = start(code, scripted.env).end()

    assert_ended(ended, ["a b c d e f g h", "process", "0 outstanding"])


APP = """
master, inherited = execute("master"), pool.exec(LONG)

def app(environ, start_response):
    asked = environ["QUERY_STRING"]
    result = pool.exec(LONG).result()["id"] if asked == "long" else execute(asked)
    body = f"{os.getpid()} {master} {result} {type(inherited.exception(5)).__name__}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_prefork_server_that_used_the_pool_before_it_forked(scripted: Running, gate: Path, tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text(PRELUDE + APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = ["--preload", "--workers=2", "--no-control-socket", "--log-level=warning", f"--chdir={tmp_path}"]
        command = [sys.executable, "-m", "gunicorn", *options, f"--bind=fd://{listener.fileno()}", "web:app"]
        env = scripted.env | {"GATE": str(gate)}
        server = Program(command, tmp_path / "web.err", env, [listener.fileno()])
        first, second = (HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=10) for _ in range(2))
        with closing(server), closing(first), closing(second):
            first.request("GET", "/?long")
            second.request("GET", "/?quick")  # for the other worker, because one is busy
            quick = second.getresponse().read().decode().split()
            gate.touch()
            long = first.getresponse().read().decode().split()

            server.signal(signal.SIGTERM)
            assert_ended(server.end(), [])

    assert quick[1:] == ["master", "quick", "PoolForkedError"]
    assert long[1:] == ["master", "long", "PoolForkedError"]
    assert len({quick[0], long[0], str(server.process.pid)}) == 3


# --- event loops ------------------------------------------------------------------------------------------------------


@every_loop
def test_loops_one_after_the_other_and_in_threads_share_a_pool(scripted: Running, start: Start, loop: str) -> None:
    code = """
async def gather(n):
    results = await asyncio.gather(*(pool.exec(race(race_id=str(i))) for i in range(n)))
    return [int(result["id"]) for result in results]
assert run(gather(100)) == run(gather(100)) == list(range(100))
with ThreadPoolExecutor(4) as threads:
    assert list(threads.map(run, [gather(25) for _ in range(4)])) == [list(range(25))] * 4
say("ready")
"""

    assert_ended(start(LOOPS[loop] + code, scripted.env).end(), ["ready"])


@every_loop
def test_loop_that_ends_with_tasks_outstanding_says_nothing_and_touches_no_other(
    scripted: Running, start: Start, loop: str
) -> None:
    code = """
other = pool.exec(race(LONG["name"], "other"))
async def leave():
    unawaited = [pool.exec(LONG) for _ in range(10)]
    tasks = [asyncio.ensure_future(pool.exec(LONG)) for _ in range(10)]
    shielded = asyncio.ensure_future(asyncio.shield(pool.exec(LONG)))
    await asyncio.sleep(0.01)
    return unawaited, tasks
unawaited, tasks = run(leave())
say({future.done() for future in unawaited}, {task.cancelled() for task in tasks})
open_gate()
say({future.result()["id"] for future in unawaited}, other.result()["id"])
say(run(asyncio.wait_for(pool.exec(race()), 10))["id"])
"""

    program = start(LOOPS[loop] + code, scripted.env)

    assert_ended(program.end(), ["{False} {True}", "{'long'} other", "r"])


@every_loop
def test_closed_loop_is_freed_whatever_was_outstanding(scripted: Running, start: Start, loop: str) -> None:
    """Python reports every task on a closed loop as destroyed."""
    code = """
import gc, weakref
async def begin():
    return [asyncio.ensure_future(pool.exec(LONG)) for _ in range(2)], await pool.exec(race())
loop = new_event_loop()
tasks, first = loop.run_until_complete(begin())
loop.close()
open_gate()
until(lambda: "unresolved=0" in repr(pool))
say(run(asyncio.wait_for(pool.exec(race()), 10))["id"], first["id"])
loop = weakref.ref(loop)
del tasks
gc.collect()
say(loop())
"""

    ended = start(LOOPS[loop] + code, scripted.env).end()

    destroyed = [line for line in ended.err if not line.startswith("task: <Task pending")]
    assert (ended.code, ended.out) == (0, ["r r", "None"])
    assert destroyed == ["Task was destroyed but it is pending!"] * 2
    assert ended.seconds < END_S


@every_loop
def test_cancellation_and_timeouts_in_a_loop_take_tasks_back(scripted: Running, start: Start, loop: str) -> None:
    code = """
async def main():
    timed, cancelled = pool.exec(LONG), pool.exec(LONG)
    try:
        await asyncio.wait_for(timed, 0.01)
    except TimeoutError:
        say("timeout", timed.cancelled())
    task = asyncio.ensure_future(cancelled)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    say(task.cancelled(), cancelled.cancelled(), (await pool.exec(race()))["id"])
    try:
        await asyncio.wait_for(asyncio.gather(*(pool.exec(LONG) for _ in range(100))), 0.05)
    except TimeoutError:
        until(lambda: "unresolved=0" in repr(pool))
        say("all")
run(main())
"""

    program = start(LOOPS[loop] + code, scripted.env)

    assert_ended(program.end(), ["timeout True", "True True r", "all"])


# --- pools without a reference ----------------------------------------------------------------------------------------


def test_threads_and_descriptors_of_pools_that_nobody_holds_come_back(scripted: Running, start: Start) -> None:
    code = """
import gc
def held():
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))
before = held()
for _ in range(10):
    assert execute("r", on=ZmqPool()) == "r"
    ZmqPool().stats()
futures = [ZmqPool().exec(race()) for _ in range(10)]
pools = [ZmqPool() for _ in range(10)]
futures += [one.exec(race()) for one in pools]
cancelled = [ZmqPool().exec(LONG) for _ in range(10)]
assert all(future.cancel() for future in cancelled)
open_gate()
async def awaited():
    await asyncio.gather(*(ZmqPool().exec(race()) for _ in range(10)))
asyncio.run(awaited())
del pools
assert not wait(futures, 10).not_done
until(lambda: held() == before)
say("ready")
"""

    assert_ended(start(code, scripted.env).end(), ["ready"])


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

BLOCKING = {
    "result": "say('ready')\npool.exec(LONG).result()",
    "stats": "say('ready')\npool.stats()",
    "wait_for_workers": "say('ready')\npool.wait_for_workers()",
    "shutdown": "future = pool.exec(LONG)\nsay('ready')\npool.shutdown()",
    "with": "with ZmqPool() as own:\n    say('ready')\n    own.exec(LONG).result()",
    "sleep": f"{OUTSTANDING}say('ready')\ntime.sleep(60)",
}
AWAITING = {
    "exec": "await pool.exec(LONG)",
    "gather": "await asyncio.gather(*(pool.exec(LONG) for _ in range(100)))",
    "stats_async": "await pool.stats_async()",
    "wait_for_workers_async": "await pool.wait_for_workers_async()",
    "aclose": "own = ZmqPool(); own.exec(LONG); await own.aclose()",
    "async with": "async with ZmqPool() as own: own.exec(LONG)",
    "sleep": "futures = [pool.exec(LONG) for _ in range(100)]; await asyncio.sleep(60)",
}


@pytest.mark.parametrize("call", BLOCKING)
def test_interrupt_ends_a_program_that_blocks(start: Start, nobody: dict[str, str], call: str) -> None:
    program = start(BLOCKING[call], nobody)
    assert program.line() == "ready"

    program.interrupt()

    assert_ended(program.end(), [], INTERRUPTED, -signal.SIGINT)


@pytest.mark.parametrize("call", AWAITING)
def test_interrupt_ends_a_program_that_awaits(start: Start, nobody: dict[str, str], call: str) -> None:
    begin = "async def main():\n    asyncio.get_running_loop().call_soon(say, 'ready')\n"
    program = start(f"{begin}    {AWAITING[call]}\nasyncio.run(main())", nobody)
    assert program.line() == "ready"

    program.interrupt()

    assert_ended(program.end(), [], ASYNC_INTERRUPTED, -signal.SIGINT)


def test_interrupt_ends_a_program_whose_tasks_run(scripted: Running, start: Start) -> None:
    program = start(
        f"{OUTSTANDING}until(lambda: pool.stats().in_flight == 3)\nsay('ready')\nwait(futures)", scripted.env
    )
    assert program.line() == "ready"

    program.interrupt()

    assert_ended(program.end(), [], INTERRUPTED, -signal.SIGINT)


def test_second_interrupt_while_the_first_ends_the_program_says_nothing(start: Start, nobody: dict[str, str]) -> None:
    """It comes 30 ms after the first exit hook, while the I/O thread tries for 100 ms to send its last messages."""
    code = """
signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGINT))
atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.03)
future = pool.exec(LONG)
say("ready")
future.result()
"""
    program = start(code, nobody)
    assert program.line() == "ready"

    program.interrupt()

    assert_ended(program.end(), [], INTERRUPTED, -signal.SIGINT)


LOCAL = {
    "entering": "with local_pool(workers=1): time.sleep(60)",
    "inside": "with local_pool(workers=1) as own:\n    future = own.exec(LONG)\n    say('ready')\n    future.result()",
    "leaving": "with local_pool(workers=1) as own:\n    own.exec(LONG)\n    say('ready')",
}
ASYNC_LOCAL = {
    "entering": "async with local_pool(workers=1): await asyncio.sleep(60)",
    "inside": "async with local_pool(workers=1) as own: future = own.exec(LONG); say('ready'); await future",
    "leaving": "async with local_pool(workers=1) as own: own.exec(LONG); say('ready')",
}


@pytest.fixture
def home(run_dir: Path) -> Path:
    """The parent of the local pools' directories: a short path, and otherwise empty."""
    path = run_dir / "t"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def local(nobody: dict[str, str], home: Path) -> dict[str, str]:
    return nobody | {"RACEPOOL_TRANSFORM": "transforms:scripted", "TMPDIR": str(home)}


@pytest.mark.parametrize("place", LOCAL)
def test_interrupt_of_a_local_pool_leaves_nothing(
    start: Start, local: dict[str, str], home: Path, wait_until: WaitUntil, place: str
) -> None:
    program = start(LOCAL[place], local)
    await_place(place, program, home, wait_until)

    program.interrupt()

    assert_ended(program.end(), [], INTERRUPTED, -signal.SIGINT)
    assert list(home.iterdir()) == []
    wait_until(lambda: processes_of(home) == [])


@pytest.mark.parametrize("place", ASYNC_LOCAL)
def test_interrupt_of_a_local_pool_in_a_loop_leaves_nothing(
    start: Start, local: dict[str, str], home: Path, wait_until: WaitUntil, place: str
) -> None:
    program = start(f"async def main():\n    {ASYNC_LOCAL[place]}\nasyncio.run(main())", local)
    await_place(place, program, home, wait_until)

    program.interrupt()

    assert_ended(program.end(), [], ASYNC_INTERRUPTED, -signal.SIGINT)
    assert list(home.iterdir()) == []
    wait_until(lambda: processes_of(home) == [])


def test_local_pool_outlives_an_interrupt_that_its_program_catches(
    start: Start, local: dict[str, str], home: Path
) -> None:
    code = """
with local_pool(workers=1) as own:
    try:
        say("ready")
        time.sleep(60)
    except KeyboardInterrupt:
        say(execute("after", on=own))
    sys.exit(3)
"""
    program = start(code, local)
    assert program.line() == "ready"
    groups = [os.getpgid(pid) for pid in processes_of(home) if pid != program.process.pid]
    assert groups

    program.interrupt()

    assert program.process.pid not in groups
    assert_ended(program.end(), ["after"], code=3)


def test_forked_child_that_leaves_the_block_leaves_the_pool_to_its_parent(
    start: Start, local: dict[str, str], home: Path, wait_until: WaitUntil
) -> None:
    code = """
with local_pool(workers=1) as own:
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    say("still there" if os.listdir(os.environ["TMPDIR"]) else "gone")
    say(execute("after", on=own))
"""
    assert_ended(start(code, local).end(), ["still there", "after"])

    assert list(home.iterdir()) == []
    wait_until(lambda: processes_of(home) == [])


def test_two_interrupts_of_a_local_pool_leave_nothing(
    start: Start, local: dict[str, str], home: Path, wait_until: WaitUntil
) -> None:
    program = start(LOCAL["inside"], local)
    await_place("inside", program, home, wait_until)

    program.interrupt(times=2)
    ended = program.end()

    assert ended.code == -signal.SIGINT
    assert ended.err[-2:] == INTERRUPTED
    assert {*ended.err} <= {*INTERRUPTED, CHAINED}
    assert ended.seconds < END_S
    assert list(home.iterdir()) == []
    wait_until(lambda: processes_of(home) == [])


@pytest.mark.parametrize("program", ["broker", "worker"])
def test_program_of_a_supervisor_that_was_killed_meanwhile_makes_no_directory(
    run_dir: Path, wait_until: WaitUntil, program: str
) -> None:
    """A local pool removes its directory at that moment. Children of a killed supervisor may still run under init."""
    env = environment(run_dir / program) | {"SUPERVISOR_ENABLED": "1"}

    command = ["sh", "-c", f"(sleep 1; exec {sys.executable} -P -m {program}) &"]
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=10)

    wait_until(lambda: processes_of(run_dir / program) == [])
    assert not (run_dir / program).exists()


def await_place(place: str, program: Program, home: Path, wait_until: WaitUntil) -> None:
    if place == "entering":
        wait_until(lambda: [*home.glob("racepool-*/supervisord.pid")])
    else:
        assert program.line() == "ready"


def processes_of(home: Path) -> list[int]:
    """The processes with this directory in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended
            if os.fsencode(home) in path.read_bytes():
                found.append(int(path.parent.name))
    return found
