"""The broker as a program: `python -P -m racepool.broker`, or `racepool broker`."""

import os
import sys

import zmq

from racepool.broker.intake import OverlongMultipartError
from racepool.broker.lock import BrokerLock, LockTakenError
from racepool.broker.resource_watch import MemoryLimitError
from racepool.broker.server import Server, SocketLostError
from racepool.protocol import clock
from racepool.protocol.errors import SettingsError
from racepool.protocol.exits import Exit
from racepool.protocol.flags import from_command_line
from racepool.protocol.logs import LOG_HOLD_S, Outlet, open_log
from racepool.protocol.processes import calm_collector, die_with_supervisor, raise_file_limit
from racepool.protocol.settings import Settings, is_supervised
from racepool.protocol.visible import visible_lines

THROTTLE_S = 1.0  # a broker that cannot start, under a supervisor that restarts at once, must not spin


def main() -> int:
    """Runs one broker until it is told to stop; returns its exit code."""
    os.umask(0o077)  # the sockets also belong to this user alone
    if is_supervised():
        die_with_supervisor()  # before it makes the run directory, which the owner of a killed pool has removed
    try:
        settings = from_command_line(Settings, "racepool broker")
        directory = settings.private_dir()
    except SettingsError as error:
        return _refused(error, Exit.BAD_SETTINGS)
    outlet = Outlet(sys.stdout.fileno(), LOG_HOLD_S)
    log = open_log(settings, outlet=outlet, program="broker")
    try:
        locks = [BrokerLock(each) for each in {directory, *settings.ipc_directories(*settings.endpoints())}]
    except LockTakenError as error:
        log.error("broker_refused", reason=str(error))
        return _refused(error, Exit.LOCK_TAKEN)
    except SettingsError as error:
        log.error("broker_refused", reason=str(error))
        return _refused(error, Exit.BAD_SETTINGS)
    except OSError as error:
        log.error("broker_refused", reason=str(error))
        return _refused(error, Exit.FAILURE)
    raise_file_limit()
    calm_collector()
    try:
        Server(settings, log, outlet).run()
    except SettingsError as error:
        log.error("broker_refused", reason=str(error))
        return _refused(error, Exit.BAD_SETTINGS)
    except (zmq.ZMQError, SocketLostError, MemoryLimitError, OverlongMultipartError) as error:
        log.error("broker_failed", reason=str(error))
        clock.sleep(THROTTLE_S)
        return Exit.FAILURE
    except Exception:
        log.exception("broker_failed")
        clock.sleep(THROTTLE_S)
        return Exit.FAILURE
    finally:
        for lock in locks:
            lock.release()
        outlet.flush()
    return Exit.OK


def _refused(error: Exception, code: Exit) -> int:
    sys.stderr.write(f"racepool broker: {visible_lines(str(error))}\n")
    clock.sleep(THROTTLE_S)
    return code


if __name__ == "__main__":
    sys.exit(main())
