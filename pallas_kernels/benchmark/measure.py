"""Compile programs and time them in turn, so that all see the same state of the machine."""

import ctypes
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import jax

SAMPLE_SECONDS = 0.02
"""Duration of a sample, which is as many calls as fit: clock and dispatch are then small."""


class Timing(NamedTuple):
    """Milliseconds per call: median and quartiles of the samples."""

    median: float
    low: float
    high: float


class Program(NamedTuple):
    """Function with its arguments, and the bytes that it needs beside them, where known."""

    call: Callable[[], Any]
    temporary_bytes: int | None = None


class Compiled(NamedTuple):
    """Compiled function, for any arguments of the same shapes."""

    run: Callable[..., Any]
    temporary_bytes: int

    def on(self, arguments: Sequence[Any]) -> Program:
        """Return the program of these arguments, which stay on the device."""
        return Program(lambda: self.run(*arguments), self.temporary_bytes)


def compile_program(function: Callable[..., Any], arguments: Sequence[Any]) -> Compiled:
    """Compile for the shapes of the arguments."""
    compiled = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    assert memory is not None  # every backend used here has one
    return Compiled(compiled, memory.temp_size_in_bytes)


def compile_all(
    functions: Mapping[str, Callable[..., Any]], arguments: Sequence[Any]
) -> dict[str, Compiled]:
    """Compile side by side, on as many cores as there are."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = pool.map(
            lambda function: compile_program(function, arguments), functions.values()
        )
        return dict(zip(functions, compiled, strict=True))


def time_in_turn(programs: Sequence[Program], samples: int) -> list[Timing]:
    """Warm up, then take one sample of each program after the other, ``samples`` times."""
    calls = [_calls_per_sample(program) for program in programs]
    taken: list[list[float]] = [[] for _ in programs]
    for _ in range(samples):
        for program, count, times in zip(programs, calls, taken, strict=True):
            times.append(1e3 * _seconds(program, count) / count)
    return [_timing(times) for times in taken]


def _calls_per_sample(program: Program) -> int:
    first = _seconds(program, 1)
    if first > 50 * SAMPLE_SECONDS:
        return 1
    _seconds(program, 1)
    return max(1, round(SAMPLE_SECONDS / _seconds(program, 1)))


def resident_bytes(program: Program) -> int | None:
    """Return by how much a call raises the memory of this process; None where Linux tells nothing.

    What the call returns is counted, and what it gives back at its end.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls have left would be used again, uncounted
    reset.write_text("5")  # the peak is now what is resident
    before = _kibibytes(status, "VmRSS")
    jax.block_until_ready(program.call())
    return 1024 * (_kibibytes(status, "VmHWM") - before)


def _kibibytes(status: Path, name: str) -> int:
    (value,) = re.findall(rf"{name}:\s+(\d+) kB", status.read_text())
    return int(value)


def _seconds(program: Program, count: int) -> float:
    start = time.perf_counter()
    result = None
    for _ in range(count):
        result = program.call()
    jax.block_until_ready(result)
    return time.perf_counter() - start


def _timing(times: Sequence[float]) -> Timing:
    low, median, high = quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)
