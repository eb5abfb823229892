"""Results as JSON and as a Markdown table."""

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from pallas_kernels.benchmark.attentions import WAYS
from pallas_kernels.benchmark.candidates import NO_MASS, STOCK
from pallas_kernels.benchmark.measure import Timing
from pallas_kernels.benchmark.results import Result
from pallas_kernels.benchmark.shapes import Shape
from pallas_kernels.benchmark.targets import distances, targets_table


def environment() -> dict[str, Any]:
    """Return device, versions and commit."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "host": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def write_report(
    path: Path,
    settings: Mapping[str, Any],
    results: Sequence[Result],
    left_out: Sequence[Shape] = (),
) -> None:
    """Write ``path.json`` and ``path.md``; ``left_out`` are shapes for which there was no time."""
    content = {
        **settings,
        "results": [asdict(result) for result in results],
        "targets": [asdict(distance) for distance in distances(results)],
        "left_out": [str(shape) for shape in left_out],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(settings, results, left_out))


def page(
    settings: Mapping[str, Any], results: Sequence[Result], left_out: Sequence[Shape] = ()
) -> str:
    """Return the report in Markdown: settings, distances to the targets, a table per shape."""
    parts = ["# Causal mass attention"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in settings.items()))
    if found := distances(results):
        parts.append(f"## Targets\n\n{targets_table(found)}")
    if left_out:
        parts.append("Not measured, out of time: " + "; ".join(map(str, left_out)) + ".")
    parts.append(EXPLANATION)
    for shape in dict.fromkeys(result.shape for result in results):
        parts.append(f"## {shape}\n\n{table([r for r in results if r.shape == shape])}")
    return "\n\n".join(parts) + "\n"


EXPLANATION = (
    "Median milliseconds (quartiles). TFLOP/s count two matrix products of the visible pairs "
    "forward and five backward; backward is both minus forward. Ratios are of times, that of the "
    "other over that of the row, so 1 is equal and more is faster: against the same implementation "
    "without the mass, and against stock attention. Temporary memory is what XLA "
    "plans, resident memory by how much a call "
    "raises that of the process, its results included. Errors are relative to float64, root mean "
    "square over 24 queries of one head."
)
COLUMNS = (
    "",
    "forward",
    "TFLOP/s",
    "of no mass",
    "of stock",
    "forward and backward",
    "backward TFLOP/s",
    "of no mass",
    "of stock",
    "temporary MiB",
    "resident MiB",
    "error of out, mass, d_query",
)


def table(results: Sequence[Result]) -> str:
    """Return the table of one shape."""
    by_name = {result.candidate: result for result in results}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for result in results:
        if result.refusal is not None:
            if NO_MASS not in result.candidate:
                lines.append(f"| {result.candidate} | {result.refusal} |" + " |" * 10)
            continue
        lines.append("| " + " | ".join(_cells(result, by_name)) + " |")
    return "\n".join(lines)


def _cells(result: Result, by_name: Mapping[str, Result]) -> list[str]:
    assert result.forward
    assert result.both
    assert result.errors
    forward, both = result.forward, result.both
    flops, plain = result.shape.forward_flops, by_name.get(_without_mass(result.candidate))
    backward = both.median - forward.median
    return [
        result.candidate,
        _spread(forward),
        _rate(flops, forward.median),
        _ratio(plain, result, "forward"),
        _ratio(by_name.get(STOCK), result, "forward"),
        _spread(both),
        _rate(2.5 * flops, backward),
        _ratio(plain, result, "both"),
        _ratio(by_name.get(STOCK), result, "both"),
        _mebibytes(result.temporary_bytes),
        _mebibytes(result.resident_bytes),
        ", ".join(f"{error:.1e}" for error in result.errors.values()),
    ]


def _without_mass(name: str) -> str:
    return STOCK if name in WAYS else name + NO_MASS


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.1f}"


def _spread(timing: Timing) -> str:
    return f"{timing.median:.3g} ({timing.low:.3g}-{timing.high:.3g})"


def _rate(flops: float, milliseconds: float) -> str:
    return f"{flops / milliseconds / 1e9:.3g}" if milliseconds > 0 else "-"


def _ratio(other: Result | None, result: Result, field: str) -> str:
    timing = None if other is None else getattr(other, field)
    return "-" if timing is None else f"{timing.median / getattr(result, field).median:.2f}"
