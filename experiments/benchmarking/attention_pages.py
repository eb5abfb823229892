"""Pages of attention maps by this package, by CircuitsVis and by BertViz, of the same arrays.

``experiments.benchmark_attention_page`` runs this module once for each page, so that one that runs
out of memory takes nothing along.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.benchmarking.processes import peak_bytes

Contender = Literal["cat_jax", "circuitsvis", "bertviz model_view", "bertviz head_view"]


@dataclass(frozen=True)
class Task:
    """A page to write.

    Attributes:
        contender: Who writes it.
        maps: File of the maps, [N, H, T, T] float32.
        tokens: File of their tokens, JSON.
        layers: How many layers it shows, from the first.
        out: File to write.
        limit_bytes: Memory that the process may take.
    """

    contender: Contender
    maps: str
    tokens: str
    layers: int
    out: str
    limit_bytes: int


@dataclass(frozen=True)
class Written:
    """What writing took.

    Attributes:
        seconds: Time.
        peak_bytes: Largest memory of the process.
    """

    seconds: float
    peak_bytes: int


def cat_jax(maps_NHTT: np.ndarray, tokens: list[str]) -> str:
    """Return the page of this package."""
    from cat_jax.analysis.pages import attention_page

    return attention_page({"model": maps_NHTT}, tokens)


def circuitsvis(maps_NHTT: np.ndarray, tokens: list[str]) -> str:
    """Return what CircuitsVis shows in a notebook without a network, a view for each layer."""
    from circuitsvis.attention import attention_heads  # pyright: ignore[reportMissingImports]

    views = (attention_heads(attention=np.array(maps_HTT), tokens=tokens) for maps_HTT in maps_NHTT)
    return HEAD + "".join(view.local_src for view in views)


def model_view(maps_NHTT: np.ndarray, tokens: list[str]) -> str:
    """Return BertViz's view of all layers and heads."""
    from bertviz import model_view  # pyright: ignore[reportMissingImports]

    return HEAD + model_view(_torch(maps_NHTT), tokens, html_action="return").data


def head_view(maps_NHTT: np.ndarray, tokens: list[str]) -> str:
    """Return BertViz's view of a layer at a time."""
    from bertviz import head_view  # pyright: ignore[reportMissingImports]

    return HEAD + head_view(_torch(maps_NHTT), tokens, html_action="return").data


HEAD = '<!doctype html><meta charset="utf-8">'
PAGES: dict[Contender, Callable[[np.ndarray, list[str]], str]] = {
    "cat_jax": cat_jax,
    "circuitsvis": circuitsvis,
    "bertviz model_view": model_view,
    "bertviz head_view": head_view,
}
DRAWN: dict[Contender, str] = {
    "cat_jax": "return document.querySelectorAll('.map canvas').length",
    "circuitsvis": "return document.querySelectorAll('canvas, img, svg').length",
    "bertviz model_view": "return document.querySelectorAll('svg line').length",
    "bertviz head_view": "return document.querySelectorAll('svg line').length",
}
"""Scripts that return how many elements are drawn."""


def _torch(maps_NHTT: np.ndarray) -> list:
    import torch  # pyright: ignore[reportMissingImports]

    return [torch.from_numpy(np.array(maps_HTT))[None] for maps_HTT in maps_NHTT]


def write(task: Task) -> Written:
    """Write a page within the memory that is allowed."""
    resource.setrlimit(resource.RLIMIT_AS, (task.limit_bytes, task.limit_bytes))
    maps_NHTT = np.load(task.maps, mmap_mode="r")[: task.layers]
    tokens = json.loads(Path(task.tokens).read_text())
    PAGES[task.contender](maps_NHTT[:1, :1, :2, :2], tokens[:2])  # imports
    start = time.perf_counter()
    page = PAGES[task.contender](maps_NHTT, tokens)
    Path(task.out).write_text(page, "utf-8")
    return Written(time.perf_counter() - start, peak_bytes())


if __name__ == "__main__":
    print(json.dumps(asdict(write(Task(**json.loads(sys.argv[1]))))))
