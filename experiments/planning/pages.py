"""Plans as JSON values, and as Markdown tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cat_jax.config import MESH_AXES
from cat_jax.markdown import markdown_table
from experiments.planning.job import layout_text
from experiments.planning.search import Plan, StepPlan
from experiments.planning.slices import GIB
from experiments.results import read_results, write_results

KEY = ("model", "tuned", "topology", "length", "sequences", "remat")
"""Values that tell one plan from another."""
METHOD_NAMES = {"plain": "plain", "cat": "CAT"}
EXPLANATION = """\
The real TPU compiler compiled the whole train step, plain and CAT, TPU kernels included, on a CPU.
Memory and traffic are the compiler's; times are estimates from closed forms and published
specifications, never measurements (docs/plan.md)."""


def as_values(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values: sizes in bytes, times in seconds."""
    job, layout = plan.job, plan.layout
    values: dict[str, Any] = {
        "model": job.name,
        "tuned": job.trained,
        "topology": plan.slice_.name,
        "chips": plan.slice_.chips,
        "length": job.length,
        "sequences": job.sequences,
        "remat": job.model.remat,
        "hbm": plan.slice_.chip.hbm,
        "fits": layout is not None,
        "closed_form_bytes": round(plan.needs),
        "refused": plan.refused,
    }
    if layout is not None:
        values |= {"mesh": list(layout.sizes)}
        values |= {"accumulate": layout.accumulate}
        values |= {name: _step_values(step) for name, step in plan.steps.items()}
    return values


def _step_values(step: StepPlan) -> dict[str, Any]:
    estimate = step.estimate
    bounds = (estimate.full_overlap, estimate.no_overlap)
    return {
        **vars(step.program),
        "flops": estimate.flops,
        "roofline": {
            name: getattr(estimate, name) for name in ("matmul", "kernels", "hbm", "links")
        },
        "step": list(bounds),
        "mfu": [estimate.mfu(seconds) for seconds in reversed(bounds)],
    }


def add_plan(out: Path, values: dict[str, Any]) -> None:
    """Write a plan to OUT.json and OUT.md, beside the plans of other jobs that are there."""
    plans = merged(read_results(out), [values])
    write_results(out, plans, page(plans))


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the old plans, those of the same job replaced by the new."""
    plans = {tuple(plan[name] for name in KEY): plan for plan in (*old, *new)}
    return list(plans.values())


def page(plans: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown page: whether each job fits, then the cost of each method's step."""
    by = f"Compiled by {', '.join(sorted({plan['compiler'] for plan in plans}))}."
    parts = ["# Plans for TPU pods", EXPLANATION, fit_table(plans), step_table(plans), by]
    return "\n\n".join(parts) + "\n"


def fit_table(plans: Sequence[dict[str, Any]]) -> str:
    """Return a table with a row per job: its mesh and its memory."""
    rows = [
        [
            plan["model"],
            plan["tuned"],
            f"{plan['topology']} ({plan['chips']} chips)",
            f"{plan['sequences']} x {plan['length']}",
            *_fit_cells(plan),
        ]
        for plan in plans
    ]
    jobs = ["model", "trained", "topology", "sequences x positions", "fits", " x ".join(MESH_AXES)]
    memory = [f"{name}, GiB" for name in ("arguments", "plain, peak", "CAT, peak", "HBM")]
    return markdown_table([*jobs, *memory], rows)


def _fit_cells(plan: dict[str, Any]) -> list[str]:
    if not plan["fits"]:
        # Refused by the compiler, or not compiled at all.
        least = f"needs {_gib(plan['closed_form_bytes'])}"
        needs = f"refused: {', '.join(plan['refused'])}" if plan["refused"] else least
        return ["no", "", "", needs, needs, _gib(plan["hbm"])]
    return [
        "yes",
        layout_text(plan["mesh"], plan["accumulate"]),
        _gib(plan["cat"]["arguments"]),
        _gib(plan["plain"]["peak"]),
        _gib(plan["cat"]["peak"]),
        _gib(plan["hbm"]),
    ]


def step_table(plans: Sequence[dict[str, Any]]) -> str:
    """Return a table with two rows per job that fits: FLOPs, traffic, and the estimated time."""
    rows = [
        [plan["model"], plan["tuned"], plan["topology"], title, *_step_cells(plan[name])]
        for plan in plans
        if plan["fits"]
        for name, title in METHOD_NAMES.items()
    ]
    jobs = ["model", "trained", "topology", "step", "model TFLOP", "received per chip, GiB"]
    roofline = ["products, s", "kernels, s", "HBM, s", "links, s", "step, s", "MFU"]
    return markdown_table([*jobs, *roofline], rows)


def _step_cells(step: dict[str, Any]) -> list[str]:
    kinds = ", ".join(f"{kind} {_gib(size)}" for kind, size in step["received"].items())
    low, high = step["mfu"]
    return [
        f"{step['flops'] / 1e12:,.0f}",
        kinds or "none",
        *(f"{step['roofline'][part]:.3f}" for part in ("matmul", "kernels", "hbm", "links")),
        "{:.2f} to {:.2f}".format(*step["step"]),
        f"{low:.0%} to {high:.0%}",
    ]


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
