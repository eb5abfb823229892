"""What a run ran with: versions, devices, and the commit of the code."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from etils import epath

from cat_jax import __version__
from cat_jax.errors import InputError
from cat_jax.files import read_json, write_text

ENVIRONMENT_FILE = "environment.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "grain", "numpy")
ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """Return versions, devices and git commit (None where the code is no checkout), as JSON."""
    return {
        "versions": {
            "python": platform.python_version(),
            "cat_jax": __version__,
            **{name: _version(name) for name in PACKAGES},
        },
        "devices": {
            "platform": jax.devices()[0].platform,
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
            "cpu_cores": os.cpu_count(),
        },
        "git": git_state(ROOT),
    }


def device_name() -> str:
    """Return number and kind of the devices, such as ``8 x TPU v5 lite``."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def describe_environment(names: tuple[str, ...] = ("jax", "flax", "optax")) -> str:
    """Return devices, processor, cores and versions on one line."""
    own = {"python": platform.python_version(), "cat_jax": __version__}
    versions = own | {name: _version(name) for name in names}
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{device_name()}, {os.cpu_count()} CPU cores ({processor_name()}), {listed}"


def processor_name() -> str:
    """Return the model of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit of a checkout and whether files differ from it; None if it is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return {"commit": commit, "dirty": bool(changes)}


def note_environment(workdir: epath.Path) -> None:
    """Add the environment to a workdir: a list, as a run may be continued in another."""
    noted = noted_environments(workdir)
    now = environment()
    if noted[-1:] != [now]:
        write_text(workdir / ENVIRONMENT_FILE, json.dumps([*noted, now], indent=2) + "\n")


def noted_environments(workdir: epath.Path) -> list[dict[str, Any]]:
    """Return the environments that a workdir notes.

    Raises:
        InputError: The file is damaged.
    """
    file = workdir / ENVIRONMENT_FILE
    if not file.exists():
        return []
    mend = "remove it to resume: it notes versions and devices, no more"
    noted = read_json(file, list, mend)
    if not noted or not all(isinstance(item, dict) for item in noted):
        raise InputError(f"{file} notes no environments; {mend}")
    return noted


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    if not (folder / ".git").exists():  # an installed copy may lie inside another checkout
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
