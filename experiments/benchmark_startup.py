"""Time what a user waits for: the import, ``--help`` of every command, the demo's first step.

The exit status is 1 where a bar is missed.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from experiments.benchmarking.processes import ROOT
from experiments.command_line import exit_status, parse_arguments

MOST_IMPORT_SECONDS = 0.3
MOST_HELP_SECONDS = 4.0 if find_spec("torch") else 2.0
"""Of CPU time; transformers imports torch where it is installed."""
MOST_FIRST_STEP_SECONDS = 15.0


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Stem of the files to write, OUT.json and OUT.md.
        repeats: Measurements of the import and of each help; medians count.
        cached: Leave the compiled programs of earlier runs to the demo.
    """

    out: Annotated[str, tyro.conf.Positional]
    repeats: Count = 5
    cached: bool = False

    def __post_init__(self):
        check_ranges(self, "")


@dataclass(frozen=True)
class Startup:
    """What was measured.

    Attributes:
        import_seconds: Time of ``python -c "import cat_jax"``, the interpreter's own included.
        help_seconds: CPU time of ``--help`` by command.
        first_step_seconds: From the demo's command to its first training step.
    """

    import_seconds: float
    help_seconds: Mapping[str, float]
    first_step_seconds: float


def main() -> None:
    """Measure, write, and say which bars are missed.

    Raises:
        InputError: The demo ended before its first step.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_startup", description=__doc__
    )
    from cat_jax.files import write_text
    from cat_jax.train.provenance import describe_environment

    found = Startup(
        median(_seconds("-c", "import cat_jax")[0] for _ in range(args.repeats)),
        {name: help_seconds(name, args.repeats) for name in commands()},
        first_step_seconds(cached=args.cached),
    )
    machine = describe_environment(("jax", "transformers", "torch"))
    values = {"machine": machine, **asdict(found)}
    write_text(f"{args.out}.json", json.dumps(values, indent=1) + "\n")
    write_text(f"{args.out}.md", page(found, machine))
    print(page(found, machine), end="")
    missed = missed_bars(found)
    for line in missed:
        print(f"missed: {line}")
    sys.exit(1 if missed else 0)


def commands() -> list[str]:
    """Return the names of all commands."""
    files = (ROOT / "experiments").glob("*.py")
    return sorted(file.stem for file in files if '__name__ == "__main__"' in file.read_text())


def help_seconds(name: str, repeats: int) -> float:
    """Return the median CPU time of a command's help."""
    words = "-m", f"experiments.{name}", "--help"
    return median(_seconds(*words)[1] for _ in range(repeats))


def _seconds(*words: str) -> tuple[float, float]:
    """Run Python with these words; return seconds that passed, and of CPU time."""
    before, started = cpu_seconds(), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started, cpu_seconds() - before


def cpu_seconds() -> float:
    """Return the CPU time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_step_seconds(*settings: str, cached: bool = False) -> float:
    """Return the seconds from the demo's command, with these settings, to its first step.

    Raises:
        InputError: It ended before.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        if not cached:
            environment["XDG_CACHE_HOME"] = f"{folder}/cache"
        words = ["--out", folder, "--name", "demo", "--train.log-every", "1", *settings]
        started = time.perf_counter()
        demo = subprocess.Popen(
            [sys.executable, "-m", "experiments.train_stg", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not _has_stepped(Path(folder) / "demo"):
                if demo.poll() is not None:
                    raise InputError(f"the demo ended, status {demo.returncode}, before a step")
                time.sleep(0.05)
            return time.perf_counter() - started
        finally:
            demo.kill()
            demo.wait()


def _has_stepped(folder: Path) -> bool:
    """Tell whether some run has logged a training step."""
    for file in folder.rglob("metrics.jsonl"):
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n") and json.loads(line).get("step", 0) >= 1:
                return True
    return False


def missed_bars(found: Startup) -> list[str]:
    """Return the bars that are missed, each with how far."""
    told = {"import cat_jax": (found.import_seconds, MOST_IMPORT_SECONDS)}
    told |= {f"{k} --help": (x, MOST_HELP_SECONDS) for k, x in found.help_seconds.items()}
    told["first step of the demo"] = (found.first_step_seconds, MOST_FIRST_STEP_SECONDS)
    return [
        f"{name}: {seconds:.2f} s, to stay under {most:g}"
        for name, (seconds, most) in told.items()
        if seconds >= most
    ]


def page(found: Startup, machine: str) -> str:
    """Return the page."""
    slowest = max(found.help_seconds, key=lambda name: found.help_seconds[name])
    return f"""# Start-up

`python -m experiments.benchmark_startup benchmarks/startup`

| what | seconds | to stay under |
| --- | --- | --- |
| `python -c "import cat_jax"` | {found.import_seconds:.2f} | {MOST_IMPORT_SECONDS:g} |
| `--help`, CPU time, slowest of {len(found.help_seconds)} commands (`{slowest}`) \
| {found.help_seconds[slowest]:.2f} | {MOST_HELP_SECONDS:g} |
| first training step of the demo, nothing compiled before \
| {found.first_step_seconds:.1f} | {MOST_FIRST_STEP_SECONDS:g} |

{machine}
"""


if __name__ == "__main__":
    sys.exit(exit_status(main))
