"""Results of benchmarks and plans: OUT.json for programs, OUT.md for readers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cat_jax.files import write_text


def results_file(out: Path, kind: str) -> Path:
    """Return OUT.KIND; dots in the name of OUT are part of it."""
    return out.with_name(f"{out.name}.{kind}")


def read_results(out: Path) -> list[dict[str, Any]]:
    """Return the results in OUT.json, none where there is no such file."""
    path = results_file(out, "json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_results(out: Path, results: Sequence[dict[str, Any]], page: str) -> None:
    """Write results to OUT.json and their page to OUT.md."""
    write_text(results_file(out, "json"), json.dumps(results, indent=1) + "\n")
    write_text(results_file(out, "md"), page)
