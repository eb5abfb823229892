"""Contenders in processes of their own, so that peak memory and threads are their own."""

import json
import re
import subprocess
import sys
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


def peak_bytes() -> int:
    """Return the largest resident memory that this process had."""
    # ru_maxrss would be that of the process that started this one, if it was larger.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024
