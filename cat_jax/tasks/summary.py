"""What is known about a task, as JSON values."""

from dataclasses import asdict
from typing import Any

from cat_jax.tasks.base import Task
from cat_jax.tasks.game import CausalGame
from cat_jax.tasks.rules import score_rules


def describe_task(task: Task, seed: int = 0) -> dict[str, Any]:
    """Return name and settings, the causal graph, and how the reference rules do.

    The graph stands as ``nodes`` (name to role) and ``edges`` (pairs of names), for tasks that are
    drawn from a causal model.
    """
    found: dict[str, Any] = {"task": task.name, "settings": asdict(task), "seed": seed}
    if isinstance(task, CausalGame):
        graph = task.graph
        nodes, edges = dict(graph.nodes(data="role")), [list(edge) for edge in graph.edges]
        found["graph"] = {"nodes": nodes, "edges": edges}
    return found | {"reference_rules": score_rules(task, seed=seed)}
