"""The review page: one file that loads nothing and sends nothing.

Texts are held as code points, as Python counts them; a browser counts UTF-16 units.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from os import PathLike
from typing import Any

from cat_jax.annotation.annotate import Annotated
from cat_jax.annotation.drawing import COLOURS, graph_svg
from cat_jax.annotation.opinions import Edge, Place
from cat_jax.annotation.prior import Prior
from cat_jax.annotation.review.items import ReviewItem, as_items
from cat_jax.data.matching import borders
from cat_jax.files import write_text
from cat_jax.offline_page import offline_page

FILES = resources.files("cat_jax.annotation.review")


def save_review(path: str | PathLike[str], items: Iterable[Any] | Annotated, prior: Prior) -> None:
    """Write a page on which a person accepts, edits or drops annotations.

    Rejected records come first, then those that assistants agree least on. The page keeps the
    progress in the browser and exports JSONL that ``read_records`` takes.

    Args:
        path: HTML file to write.
        items: What ``read_review_items`` or ``annotate`` returns, or annotated records.
        prior: Kinds, edges and the kind of the answer, which the page checks against.

    Raises:
        InputError: A record is a conversation.
    """
    write_text(path, review_page(items, prior))


def review_page(items: Iterable[Any] | Annotated, prior: Prior) -> str:
    """Return the page; see ``save_review``."""
    data = {
        "kinds": [[kind, sentence] for kind, sentence in prior.kinds.items()],
        "edges": [list(edge) for edge in prior.edges],
        "answer": prior.answer,
        "task": prior.task,
        "items": [item_data(item, prior) for item in as_items(items, prior)],
    }
    content = json.dumps(data)
    data["digest"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return offline_page(
        "Review of annotations",
        (FILES / "review.html").read_text().replace("<!-- graph -->", graph_svg(prior)),
        style=_style(),
        script=(FILES / "review.js").read_text(),
        data=data,
    )


def item_data(item: ReviewItem, prior: Prior) -> dict[str, Any]:
    """Return an item as the page takes it; all places are of code points."""
    places = {place for edge in (*item.edges, *item.shares) for place in edge}
    kinds = {place: item.kinds.get(place) or _kind(place, item, prior) for place in places}
    return {
        "input": item.record.input,
        "target": item.record.target,
        "borders": "".join("01"[border] for border in borders(item.text)),
        "edges": [_flat(edge) for edge in sorted(item.edges)],
        "kinds": [[*place, kind] for place, kind in sorted(kinds.items())],
        "shares": [[*_flat(edge), share] for edge, share in sorted(item.shares.items())],
        "agreement": item.agreement,
        "reasons": list(item.reasons),
        "reply": item.reply,
        "fields": dict(item.fields),
    }


def _kind(place: Place, item: ReviewItem, prior: Prior) -> str:
    """Return a kind that the graph allows a place of unknown kind to be of."""
    effects: Mapping[Place, str] = {effect: prior.answer for effect, _ in item.edges}
    if place in effects and place[1] > len(item.record.input):
        return prior.answer
    return next(cause for cause, effect in prior.edges if effect == prior.answer)


def _flat(edge: Edge) -> list[int]:
    return [*edge[0], *edge[1]]


def _style() -> str:
    colours = "".join(
        f".kind{number} {{ background: {colour}; }}\n" for number, colour in enumerate(COLOURS)
    )
    return (FILES / "review.css").read_text() + colours
