"""Peak memory of preparing shards and of training on them, by the number of records."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cat_jax.config import Guidance, Training
from cat_jax.data.shards import prepare_data
from cat_jax.errors import InputError
from cat_jax.files import write_lines
from cat_jax.markdown import markdown_table
from cat_jax.testing import toy_model, toy_tokenizer
from cat_jax.train.fit import fit
from experiments.benchmarking.processes import peak_bytes

BATCH = 1_024

INTRODUCTION = """# Memory of prepared shards

`python -m experiments.benchmark_shards benchmarks/shards` writes annotated records of about 15
tokens as JSONL, prepares them as shards, and trains an epoch on them, {batch} records a step, each
in a process of its own. Below is the peak resident memory of the process, with the interpreter, JAX
and the model ({machine}).
"""


@dataclass(frozen=True)
class Result:
    """Measurement of one number of records.

    Attributes:
        records: How many.
        prepare_bytes: Peak memory of the process that prepares them.
        prepare_seconds: Time of the preparation.
        train_bytes: Peak memory of the process that trains on them.
        train_seconds: Time of the epoch, start included.
    """

    records: int
    prepare_bytes: int
    prepare_seconds: float
    train_bytes: int
    train_seconds: float


def measure(records: int) -> Result:
    """Prepare and train on that many records in two new processes.

    Raises:
        InputError: One of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "train.jsonl"
        write_lines(source, map(json.dumps, made(records)))
        prepared = in_own_process("prepare", source, Path(folder) / "shards")
        trained = in_own_process("train", Path(folder) / "shards", records // BATCH)
    return Result(records, *prepared, *trained)


def made(count: int) -> Iterator[dict[str, Any]]:
    """Yield the fields of annotated records, one at a time."""
    for number in range(count):
        digit = number * 7 % 10
        yield {
            "input": f"a={digit} b={number % 10} a is ",
            "target": str(digit),
            "important": [{str(digit): [f"a={digit}"]}],
        }


def in_own_process(work: str, *arguments: object) -> tuple[int, float]:
    """Return peak memory in bytes and seconds of a function of this module.

    Raises:
        InputError: The process failed.
    """
    given = ", ".join(repr(str(argument)) for argument in arguments)
    code = f"from {__name__} import *; print_peak(lambda: {work}({given}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{work} failed: {done.stderr.strip().splitlines()[-1]}")
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return peak, seconds


def print_peak(work: Callable[[], object]) -> None:
    """Do the work, then print the process's peak memory in bytes and the seconds it took."""
    began = time.perf_counter()
    work()
    print(json.dumps([peak_bytes(), time.perf_counter() - began]))


def prepare(source: str, out: str) -> None:
    """Prepare shards."""
    prepare_data(source, out, toy_tokenizer(), max_length=32)


def train(shards: str, steps: str) -> None:
    """Train on them, guided."""
    training = Training(steps=int(steps), batch_size=BATCH, max_length=32)
    fit(toy_model(), shards, guidance=Guidance(), train=training)


def page(results: list[Result], machine: str) -> str:
    """Return the results as a Markdown page."""
    rows = [
        [
            f"{result.records:,}",
            f"{result.prepare_bytes / 2**20:.0f} MiB",
            f"{result.prepare_seconds:.0f} s",
            f"{result.train_bytes / 2**20:.0f} MiB",
            f"{result.train_seconds:.0f} s",
        ]
        for result in results
    ]
    columns = ["records", "prepare: peak", "time", "train: peak", "time"]
    about = INTRODUCTION.format(batch=f"{BATCH:,}", machine=machine)
    return f"{about}\n{markdown_table(columns, rows, align='right')}\n"
