"""A run as a small piece of a page, for notebooks. All text is escaped."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cat_jax.train.result import RunResult

WIDTH, HEIGHT, PAD = 420, 90, 3
SHOWN = ("next_token_loss", "token_accuracy", "perplexity", "causal_mass", "guidance_loss")


def run_html(run: "RunResult") -> str:
    """Return what was trained, the curve of the loss, and the first and last measurements."""
    config = run.model.config
    last = run.history[-1]
    parameters = f"{config.num_layers} layers of {config.num_heads} heads, width {config.width}"
    facts = {
        "model": f"{run.base_name or 'in memory'}: {parameters}",
        "trained": "all parameters" if run.adapters is None else f"adapters, {run.lora}",
        "steps": f"{last['step']:,}",
        "attention": run.attention.implementation,
        "annotations": str(run.stats),
    }
    if run.selected:
        facts["selected"] = run.selected
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items()
    )
    train = [x for x in run.history if x["kind"] == "train"]
    evals = [x for x in run.history if x["kind"] == "eval"]
    points = [(x["step"], x["next_token_loss"]) for x in train if "next_token_loss" in x]
    ends = "".join(
        _measured(name, line)
        for name, lines in (("training", train), ("validation", evals))
        for line in (lines[:1] + lines[-1:])[: len(lines)]
    )
    heads = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in SHOWN)
    return (
        f'<div style="max-width:60rem"><table>{rows}</table>{_curve(points)}'
        f"<table><tr><th></th><th>step</th>{heads}</tr>{ends}</table></div>"
    )


def _measured(name: str, line: Mapping[str, Any]) -> str:
    values = (line.get(metric, math.nan) for metric in SHOWN)
    cells = "".join("<td></td>" if math.isnan(x) else f"<td>{x:.4g}</td>" for x in values)
    return f"<tr><td>{name}</td><td>{line['step']:,}</td>{cells}</tr>"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Return the training loss over steps as a line from its smallest to its largest value."""
    steps, losses = [x for x, _ in points], [y for _, y in points]
    if len(points) < 2 or not all(map(math.isfinite, losses)):
        return ""
    low, high = min(losses), max(losses)
    across, up = max(steps[-1] - steps[0], 1), (high - low) or 1.0
    line = " ".join(
        f"{PAD + (step - steps[0]) / across * (WIDTH - 2 * PAD):.1f},"
        f"{PAD + (high - loss) / up * (HEIGHT - 2 * PAD):.1f}"
        for step, loss in points
    )
    label = f"next token loss in training, from {losses[0]:.4g} to {losses[-1]:.4g}"
    return (
        f'<div><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
        f'<polyline points="{line}" fill="none" stroke="currentColor"/></svg><br>'
        f"<small>{label}</small></div>"
    )
