"""supervisord and its programs."""

import shlex
from collections.abc import Iterator

from racepool.commands.doctor.facts import Facts, Program, Supervision
from racepool.commands.doctor.finding import Finding, ok, problem, warning

OURS = ("broker", "worker", "watchdog")
RUNNING = "RUNNING"
PASSING = ("STARTING", "STOPPING")
ENDED = ("EXITED", "BACKOFF")  # with autorestart=true, the program is started again
FRESH_S = 5.0


def supervisor(facts: Facts) -> Iterator[Finding]:
    """Whether supervisord runs, and whether it answers."""
    above = facts.supervision
    if above is None:
        if facts.broker is not None:
            yield warning(
                "supervisor",
                "no supervisord runs this broker",
                "make sure that something else, such as systemd, restarts the programs; or run `racepool up`",
            )
        elif facts.environment.settings is not None and facts.stats is None:
            yield problem("supervisor", "supervisord does not run", "start the pool: `racepool up`")
    elif above.programs is None:
        yield problem(
            "supervisor",
            f"supervisord does not answer at {above.address}",
            "if its process runs, it is frozen: kill -CONT it; if not, start the pool: `racepool up`",
        )
    else:
        yield ok("supervisor", f"supervisord runs as pid {above.pid}, with {len(above.programs)} programs")


def programs(facts: Facts) -> Iterator[Finding]:
    """Whether all programs of the pool run."""
    ours = _ours(facts)
    for each in ours:
        if each.state != RUNNING and facts.supervision is not None:
            yield _not_running(each, facts.supervision)
    up = [each for each in ours if each.state == RUNNING]
    fresh = [each for each in up if each.uptime_s is not None and each.uptime_s < FRESH_S]
    ailing = [each for each in fresh if each.ended_s_ago is not None and each.ended_s_ago < 2 * FRESH_S]
    for each in ailing:
        yield warning(
            "programs",
            f"{each.name} ended {each.ended_s_ago:.0f} s ago and was started again{_words(each)}",
            "ask again in a few seconds; if it is new again, it ends all the time: mend what its last words say",
        )
    fresh = [each for each in fresh if each not in ailing]
    if fresh:
        yield warning(
            "programs",
            f"started less than {FRESH_S:g} s ago: {', '.join(each.name for each in fresh)}",
            "ask again in a few seconds; if they are new again, they end all the time, and their logs say why",
        )
    elif ours and not ailing and len(up) == len(ours):
        yield ok("programs", f"all run: {', '.join(each.name for each in up)}")


def _not_running(program: Program, above: Supervision) -> Finding:
    error = f" ({program.spawn_error})" if program.spawn_error else ""
    text = f"{program.name} is {program.state}{error}{_words(program)}"
    log = f", see {program.logs[0]}" if program.logs else ""
    is_restarted = program.state in ENDED and (above.restarts or {}).get(program.group)
    if program.state in PASSING or is_restarted:
        return warning("programs", text, f"ask again in a few seconds{log}")
    command = ["supervisorctl", "-s", above.address, "start", f"{program.group}:{program.name}"]
    return problem("programs", text, f"{shlex.join(command)}{log}")


def _words(program: Program) -> str:
    return f"; its last words: {program.last_words}" if program.last_words else ""


def restarts(facts: Facts) -> Iterator[Finding]:
    """Whether supervisord restarts a program after any exit code."""
    told = facts.supervision.restarts if facts.supervision else None
    left = [group for group in OURS if told and told.get(group) is False]
    if left:
        yield problem(
            "restarts",
            f"supervisord does not always restart these: {', '.join(left)}",
            "set autorestart=true, as in racepool's own supervisord.conf: a recycled worker exits with 0",
        )


def watchdog(facts: Facts) -> Iterator[Finding]:
    """Whether a broker that stays frozen would be replaced."""
    ours = _ours(facts)
    if ours and not any(each.group == "watchdog" for each in ours):
        yield warning(
            "watchdog",
            "supervisord has none: a frozen broker would not be replaced",
            "copy [eventlistener:watchdog] from racepool's own supervisord.conf",
        )
    for each in ours:
        if each.process and each.process.state in "Tt" and each.group == "watchdog":
            yield problem("watchdog", f"it is frozen (pid {each.pid})", f"kill -CONT {each.pid}")


def _ours(facts: Facts) -> list[Program]:
    told = facts.supervision.programs if facts.supervision else None
    return [each for each in told or () if each.group in OURS]
