"""What ``trace_spurious`` found, as JSON values, as a page and as a figure."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cat_jax.analysis.heatmaps import Panel, layer_figure
from cat_jax.analysis.interventions.knock_out import KnockOut
from cat_jax.analysis.interventions.patching import Patching
from cat_jax.analysis.interventions.paths import SpuriousPaths
from cat_jax.analysis.interventions.scores import AnswerScores
from cat_jax.errors import InputError
from cat_jax.evaluation.causal_mass import CausalMass
from cat_jax.evaluation.statistics import Interval, mean_interval
from cat_jax.markdown import escape, markdown_table

LISTED_HEADS = 3


def paths_json(paths: SpuriousPaths) -> dict[str, Any]:
    """Return all means, with 95 % intervals of those by layer; what is NaN is None."""
    before = next(iter(paths.knock_outs.values())).before
    return _without_nan(
        {
            "records": paths.records,
            "right": before.is_right.mean(),
            "preference": before.preference.mean(),
            "knock_outs": [_knock_out_json(found) for found in paths.knock_outs.values()],
            "answer_mass": {
                kind: {"mean": mass.mean, "by_head": mass.by_head_NH}
                for kind, mass in paths.mass.items()
            },
            "patching": {
                "pairs": paths.clean.is_right.size,
                "left_out": paths.left_out,
                "clean": paths.clean.preference.mean(),
                "corrupted": paths.corrupted.preference.mean(),
                "residual": paths.residual and _patching_json(paths.residual),
                "heads": paths.heads and _patching_json(paths.heads),
            },
        }
    )


def paths_markdown(paths: SpuriousPaths, title: str) -> str:
    """Return the page: knock-outs, patching, heads, and how to read them."""
    before = next(iter(paths.knock_outs.values())).before
    knocked = list(paths.knock_outs.values())
    parts = [
        f"# {escape(title)}",
        f"{paths.records:,} records, {before.is_right.mean():.1%} answered rightly; the right "
        f"answer is preferred by {before.preference.mean():.2f} nats on average.",
        "## Attention knocked out",
        "Change of the preference for the right answer in nats (with its 95 % interval) when "
        "tokens of one kind no longer read those of another, in all layers and heads; share of "
        "answers that stop being right, and that become right.",
        markdown_table(
            ["edges", "records with any", "change", "lost", "gained"],
            [_knock_out_row(found) for found in knocked],
            ("left", "right", "right", "right", "right"),
        ),
        *_layers(knocked),
        *_heads(knocked),
        "Attention of the tokens that predict the answer, for comparison: it may move without a "
        "change of what is used.",
        markdown_table(
            ["on", "mean", "largest, layer.head"],
            [[kind, f"{mass.mean:.1%}", _largest_mass(mass)] for kind, mass in paths.mass.items()],
            ("left", "right", "right"),
        ),
        "## Activations patched",
        _pairs_sentence(paths),
        *_residual(paths.residual),
    ]
    return "\n\n".join(parts) + "\n"


def _layers(knocked: list[KnockOut]) -> list[str]:
    layers = range(len(knocked[0].by_layer.log_prob))
    rows = [
        [str(n), *(_nats(found.effect(found.by_layer)[n].mean()) for found in knocked)]
        for n in layers
    ]
    table = markdown_table(["layer", *map(_path, knocked)], rows, "right")
    return ["The same in one layer alone:", table] if rows else []


def _heads(knocked: list[KnockOut]) -> list[str]:
    if not len(knocked[0].by_head.log_prob):
        return []
    rows = [[_path(found), _largest_heads(found)] for found in knocked]
    said = "Heads with the largest change, as layer.head:"
    return [said, markdown_table(["edges", "heads"], rows)]


def _residual(found: Patching | None) -> list[str]:
    if found is None:
        return []
    rows = [[str(n), *map(_share, row)] for n, row in enumerate(found.restored)]
    said = (
        "Share of it that comes back in the twin with the record's residual stream after a layer "
        "put in place, at the tokens of a kind:"
    )
    return [said, markdown_table(["layer", *found.columns], rows, "right")]


def paths_figure(paths: SpuriousPaths, title: str = "") -> Figure:
    """Draw knock-outs of the edges from spurious tokens by head, and patching by layer.

    Raises:
        InputError: Neither layers nor heads were traced (detail "whole").
    """
    if paths.residual is None:
        raise InputError("only the whole model was traced; trace with the detail layers or heads")
    spurious = [found for (keys, _), found in paths.knock_outs.items() if keys == "spurious"]
    unit, panels = "change of preference, nats", {}
    if paths.heads is None:
        by_layer_NK = np.stack([found.effect(found.by_layer).mean(-1) for found in spurious], 1)
        panels["knocked out"] = Panel(by_layer_NK, tuple(map(_path, spurious)), unit=unit)
    else:
        for found in spurious:
            by_head_NH = found.effect(found.by_head).mean(-1)
            panels[f"{_path(found)} knocked out"] = Panel(by_head_NH, unit=unit)
        panels["heads patched"] = Panel(paths.heads.restored, unit="share restored")
    panels["residual stream patched"] = Panel(
        paths.residual.restored, paths.residual.columns, unit="share restored"
    )
    return layer_figure(panels, title)


def _path(found: KnockOut) -> str:
    return f"{found.keys} → {found.queries}"


def _knock_out_row(found: KnockOut) -> list[str]:
    effect, (low, high) = _mean(found.effect(found.together))
    return [
        _path(found),
        f"{(found.edges > 0).mean():.0%}",
        f"{_nats(effect)} ({_nats(low)} to {_nats(high)})",
        f"{found.lost(found.together):.1%}",
        f"{found.gained(found.together):.1%}",
    ]


def _largest_mass(mass: CausalMass) -> str:
    ((n, h),) = _largest(mass.by_head_NH, 1)
    return f"{n}.{h} {mass.by_head_NH[n, h]:.1%}"


def _largest(values_NH: np.ndarray, count: int) -> list[tuple[int, int]]:
    order = np.argsort(-np.abs(values_NH), axis=None)[:count]
    return [divmod(int(flat), values_NH.shape[1]) for flat in order]


def _largest_heads(found: KnockOut) -> str:
    effect_NH = found.effect(found.by_head).mean(-1)
    places = _largest(effect_NH, LISTED_HEADS)
    return ", ".join(f"{n}.{h} {_nats(effect_NH[n, h])}" for n, h in places)


def _pairs_sentence(paths: SpuriousPaths) -> str:
    gap_R = paths.clean.preference - paths.corrupted.preference
    gap, (low, high) = _mean(gap_R)
    sentence = (
        f"{len(gap_R):,} records and their twins, whose spurious words are redrawn "
        f"({paths.left_out:,} more have no twin of the same tokens). The right answer is preferred "
        f"by {_nats(gap)} nats ({_nats(low)} to {_nats(high)}) more in the record than in its twin."
    )
    if low <= 0 <= high:
        sentence += " **That may be none at all, and shares of it then mean nothing.**"
    return sentence


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{round(value, 2) + 0.0:.0%}"


def _nats(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"


def _mean(values_R: np.ndarray) -> tuple[float, Interval]:
    return float(values_R.mean()), mean_interval(values_R[None])


def _knock_out_json(found: KnockOut) -> dict[str, Any]:
    def summary(after: AnswerScores) -> dict[str, Any]:
        effect, interval = _mean(found.effect(after))
        return {
            "change": effect,
            "interval": list(interval),
            "change_of_log_prob": (after.log_prob - found.before.log_prob).mean(),
            "lost": found.lost(after),
            "gained": found.gained(after),
        }

    return {
        "keys": found.keys,
        "queries": found.queries,
        "records_with_edges": int((found.edges > 0).sum()),
        "together": summary(found.together),
        "by_layer": [summary(found.by_layer[n]) for n in range(len(found.by_layer.log_prob))],
        "by_head": {
            "change": found.effect(found.by_head).mean(-1),
            "lost": found.lost(found.by_head),
            "gained": found.gained(found.by_head),
        },
    }


def _patching_json(found: Patching) -> dict[str, Any]:
    moved = found.patched.preference - found.corrupted.preference
    return {"columns": found.columns, "restored": found.restored, "change": moved.mean(-1)}


def _without_nan(value: Any) -> Any:
    """Return nested values as JSON has them."""
    if isinstance(value, dict):
        return {key: _without_nan(x) for key, x in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_without_nan(x) for x in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return value
