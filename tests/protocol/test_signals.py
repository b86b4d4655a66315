import subprocess
import sys

from tests.running import ROOT


def test_signals_to_a_child_are_not_told_to_its_parent_and_end_it() -> None:
    code = """
import os, select, signal, time
from multiprocessing import get_context
from racepool.protocol.signals import Termination
termination = Termination()
reader, writer = os.pipe()

def is_readable():
    return bool(select.select([termination], [], [], 0)[0])

def live():
    signal.signal(signal.SIGUSR1, lambda *_: None)  # a handler of the transform's own
    signal.raise_signal(signal.SIGUSR1)
    os.write(writer, b"!")
    time.sleep(60)

child = get_context("fork").Process(target=live)
child.start()
os.read(reader, 1)
child.terminate()
child.join(10)
print(child.exitcode, termination.is_asked, is_readable())
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
print(termination.is_asked, is_readable())
termination.drain()
print(termination.is_asked, is_readable())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=20, cwd=ROOT, capture_output=True, text=True
    )

    assert done.stdout.splitlines() == ["-15 False False", "True True", "True False"]
