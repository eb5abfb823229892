"""Plans as JSON values, and as tables of Markdown."""

from collections.abc import Sequence
from typing import Any

from cat_jax.sharding import MESH_AXES
from experiments.planning.search import Plan, Side
from experiments.planning.slices import GIB

KEY = ("model", "tuned", "topology", "length", "rows", "remat")
"""What tells one plan from another."""
METHOD_NAMES = {"plain": "plain", "cat": "CAT"}


def as_values(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values; sizes in bytes, times in seconds."""
    job, layout = plan.job, plan.layout
    values: dict[str, Any] = {
        "model": job.name,
        "tuned": job.tuned,
        "topology": plan.slice_.name,
        "chips": plan.slice_.chips,
        "length": job.length,
        "rows": job.rows,
        "remat": job.model.remat,
        "hbm": plan.slice_.chip.hbm,
        "fits": layout is not None,
        "closed_form_bytes": round(plan.needs),
        "refused": plan.refused,
    }
    if layout is not None:
        values |= {"mesh": list(layout.sizes)}
        values |= {"accumulate": layout.accumulate}
        values |= {name: _side_values(side) for name, side in plan.sides.items()}
    return values


def _side_values(side: Side) -> dict[str, Any]:
    return {
        **vars(side.program),
        "flops": side.estimate.flops,
        "roofline": {
            name: getattr(side.estimate, name) for name in ("matmul", "kernels", "hbm", "links")
        },
        "step": [side.estimate.at_best, side.estimate.no_overlap],
        "mfu": [side.estimate.mfu(s) for s in (side.estimate.no_overlap, side.estimate.at_best)],
    }


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old plans with the new in their places."""
    plans = {tuple(plan[name] for name in KEY): plan for plan in (*old, *new)}
    return list(plans.values())


def page(plans: Sequence[dict[str, Any]], explanation: str) -> str:
    """Whether each job fits, then what its steps cost, method beside method."""
    by = f"Compiled by {', '.join(sorted({plan['compiler'] for plan in plans}))}."
    parts = ["# Plans for TPU pods", explanation.strip(), fit_table(plans), step_table(plans), by]
    return "\n\n".join(parts) + "\n"


def fit_table(plans: Sequence[dict[str, Any]]) -> str:
    """A line per job: the mesh it should have, and its memory."""
    lines = [
        _line(
            plan["model"],
            plan["tuned"],
            f"{plan['topology']} ({plan['chips']} chips)",
            f"{plan['rows']} x {plan['length']}",
            *_fit_cells(plan),
        )
        for plan in plans
    ]
    head = ("model", "trained", "topology", "rows x positions", "fits", " x ".join(MESH_AXES))
    memory = ("arguments", "plain, peak", "CAT, peak", "HBM")
    return "\n".join([_head(*head, *(f"{name}, GiB" for name in memory)), *lines])


def _fit_cells(plan: dict[str, Any]) -> list[str]:
    if not plan["fits"]:
        # Refused by the compiler, or not compiled at all.
        leanest = f"needs {_gib(plan['closed_form_bytes'])}"
        needs = f"refused: {', '.join(plan['refused'])}" if plan["refused"] else leanest
        return ["no", "", "", needs, needs, _gib(plan["hbm"])]
    parts = f", {plan['accumulate']} parts" if plan["accumulate"] > 1 else ""
    return [
        "yes",
        " x ".join(map(str, plan["mesh"])) + parts,
        _gib(plan["cat"]["arguments"]),
        _gib(plan["plain"]["peak"]),
        _gib(plan["cat"]["peak"]),
        _gib(plan["hbm"]),
    ]


def step_table(plans: Sequence[dict[str, Any]]) -> str:
    """Two lines per job that fits: operations, traffic, and the estimate."""
    lines = [
        _line(
            plan["model"],
            plan["tuned"],
            plan["topology"],
            METHOD_NAMES[name],
            *_step_cells(plan, name),
        )
        for plan in plans
        if plan["fits"]
        for name in METHOD_NAMES
    ]
    head = ("model", "trained", "topology", "step", "model TFLOP", "received per chip, GiB")
    roofline = ("products, s", "kernels, s", "HBM, s", "links, s", "step, s", "MFU")
    return "\n".join([_head(*head, *roofline), *lines])


def _step_cells(plan: dict[str, Any], name: str) -> list[str]:
    side = plan[name]
    kinds = ", ".join(f"{kind} {_gib(size)}" for kind, size in side["received"].items())
    low, high = side["mfu"]
    return [
        f"{side['flops'] / 1e12:,.0f}",
        kinds or "none",
        *(f"{side['roofline'][part]:.3f}" for part in ("matmul", "kernels", "hbm", "links")),
        "{:.2f} to {:.2f}".format(*side["step"]),
        f"{low:.0%} to {high:.0%}",
    ]


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*cells: str) -> str:
    return _line(*cells) + "\n" + "|" + " --- |" * len(cells)
