"""A worker as a program: `python -P -m racepool.worker`, or `racepool worker`."""

import sys

from racepool.protocol import clock
from racepool.protocol.errors import SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.flags import from_command_line
from racepool.protocol.keys import Role, peer_keys
from racepool.protocol.logs import LOG_HOLD_S, Outlet, open_log
from racepool.protocol.processes import calm_collector, die_with_supervisor
from racepool.protocol.settings import is_supervised
from racepool.worker.execution import load_transform
from racepool.worker.refusal import tell_broker
from racepool.worker.runner import Runner
from racepool.worker.settings import WorkerSettings

THROTTLE_S = 1.0  # some supervisors restart without a pause; a worker that cannot start must not use all CPU


def main(life: type[Runner] = Runner) -> int:
    """Runs one worker until it is told to stop; returns its exit code."""
    if is_supervised():
        die_with_supervisor()  # before it makes the run directory: the owner of a killed pool may just have removed it
    try:
        settings = from_command_line(WorkerSettings, "racepool worker")
        settings.private_dir()
    except SettingsError as error:
        sys.stderr.write(f"racepool worker: {error}\n")
        clock.sleep(THROTTLE_S)
        return Exit.BAD_SETTINGS
    outlet = Outlet(sys.stdout.fileno(), LOG_HOLD_S)
    log = open_log(settings, outlet=outlet, program="worker", worker=settings.name)
    keys = None
    try:
        keys = peer_keys(settings, Role.WORKER, settings.backend, settings.heartbeat_endpoint)
        transform = load_transform(settings.transform)
    except SettingsError as error:
        log.error("worker_refused", reason=str(error))
        tell_broker(settings, str(error), keys)
        clock.sleep(THROTTLE_S)
        return Exit.BAD_SETTINGS
    calm_collector()
    try:
        life(settings, transform, log, outlet, keys).run()
    except BaseException:
        log.exception("worker_failed")
        clock.sleep(THROTTLE_S)
        return Exit.FAILURE
    outlet.flush()
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
