import subprocess
import sys

from tests.running import ROOT


def test_child_of_a_program_that_notes_signals_down_ends_of_them() -> None:
    code = """
import os, signal, time
from multiprocessing import get_context
from racepool.protocol.signals import Termination
termination = Termination()
reader, writer = os.pipe()

def live():
    os.write(writer, b"!")
    time.sleep(60)

child = get_context("fork").Process(target=live)
child.start()
os.read(reader, 1)
child.terminate()
child.join(10)
print(child.exitcode, termination.is_asked)
os.kill(os.getpid(), signal.SIGTERM)
print(termination.is_asked)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=20, cwd=ROOT, capture_output=True, text=True
    )

    assert done.stdout.splitlines() == ["-15 False", "True"]
