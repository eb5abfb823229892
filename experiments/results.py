"""Results of benchmarks and plans: OUT.json for programs, OUT.md for readers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from cat_jax.files import check_name, read_json, save_errors, write_text


def results_file(out: Path, kind: str) -> Path:
    """Return OUT.KIND; dots in the name of OUT are part of it.

    Raises:
        InputError: OUT has no name to which to add the kind.
    """
    check_name(out.name, "the file name of --out")
    return out.with_name(f"{out.name}.{kind}")


def read_results(out: Path) -> list[dict[str, Any]]:
    """Return the results in OUT.json, none where there is no such file."""
    path = epath.Path(results_file(out, "json"))
    return read_json(path, list, "remove it, or choose another --out") if path.exists() else []


def write_results(out: Path, results: Sequence[dict[str, Any]], page: str) -> None:
    """Write results to OUT.json and their page to OUT.md."""
    with save_errors(lambda: "results that were there stay as they are"):
        write_text(results_file(out, "json"), json.dumps(results, indent=1) + "\n")
        write_text(results_file(out, "md"), page)
