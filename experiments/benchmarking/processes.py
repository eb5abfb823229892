"""Contenders in processes of their own, so that peak memory and threads are their own."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_module(module: str, task: Any) -> dict[str, Any] | str:
    """Run a module with a task (a dataclass) as JSON; return what it prints last, as JSON.

    If it fails, return why in a line.
    """
    command = [sys.executable, "-m", module, json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return next((x for x in lines[::-1] if "out of memory" in x.lower()), lines[-1])[:300]
    return json.loads(done.stdout.splitlines()[-1])


def write_results(args: Any, machine: str, results: Sequence[Any], page: str) -> None:
    """Write OUT.json and OUT.md: machine and settings, with results as dataclasses, and the page.

    Args:
        args: Settings, a dataclass with ``out`` and ``model``, a folder of which the name is kept.
        machine: From ``describe_environment``.
        results: What was measured so far.
        page: The same as Markdown.
    """
    from cat_jax.files import write_text

    settings = asdict(args) | {"model": Path(args.model).name}
    values = {"machine": machine, "settings": settings, "results": results}
    write_text(f"{args.out}.json", json.dumps(values, indent=1, default=asdict) + "\n")
    write_text(f"{args.out}.md", page)


def peak_bytes() -> int:
    """Return the largest resident memory that this process had."""
    # ru_maxrss would be that of the process that started this one, if it was larger.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024
