"""Run by ``test_chaos.py``: kills one run again and again, and compares it with one left alone.

JAX is imported once; every life of the run is a fork from before its backend starts.
"""

import os
import random
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from toy import CONFIG, Toy

LIVES = 20
SETTINGS = replace(CONFIG, steps=220, eval_every=7, save_every=5, log_every=4, best="score")


def live(folder, events):
    """Trains, telling every step and every save that begins; leaves the result in a file."""
    warnings.simplefilter("always")
    run = Toy(folder, SETTINGS, lambda params: {"score": -abs(run.evaluated[-1] % 100 - 47)})
    state = run(
        on_step=lambda step: os.write(events, b"."), on_save=lambda step: os.write(events, b"S")
    )
    bits = [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(state)]
    result = [*bits, run.checkpoints.evaluations, *run.lines()]
    (folder / "result").write_text("\n".join(map(str, result)))


def spawn(folder):
    """A life of the run: its process, and where it tells how far it is."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        try:
            live(folder, writing)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    return process, reading


def kill_at(process, events, event, number, delay):
    """Kills the process a moment after so many events of a kind; whether it lived so long."""
    seen = 0
    while seen < number:
        told = os.read(events, 1)
        if not told:
            break
        seen += told == event
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    os.close(events)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), "the run ended before it was killed"


def finish(folder):
    process, events = spawn(folder)
    while os.read(events, 4096):
        pass
    os.close(events)
    _, status = os.waitpid(process, 0)
    assert status == 0, status
    return (folder / "result").read_text()


def main(folder):
    undisturbed = finish(folder / "undisturbed")
    draw = random.Random(0)
    torn = 0
    for life in range(LIVES):
        process, events = spawn(folder / "chaos")
        if life % 2:  # while a checkpoint is being written
            kill_at(process, events, b"S", draw.randint(1, 3), draw.uniform(0, 0.06))
        else:
            kill_at(process, events, b".", draw.randint(0, 16), draw.uniform(0, 0.03))
        torn += bool(list(folder.glob("chaos/checkpoints/*tmp*")))
    assert finish(folder / "chaos") == undisturbed
    print(f"equal after {LIVES} kills, {torn} of them while a checkpoint was written")


main(Path(sys.argv[1]))
