"""The page of attention maps: one file that loads nothing and sends nothing."""

from collections.abc import Mapping, Sequence
from importlib import resources
from os import PathLike
from typing import Any, get_args

import numpy as np

from cat_jax.analysis.pages.codes import LARGEST_ERROR, encode, pool, text_of
from cat_jax.analysis.pages.contents import Contents, Head, Shape, choose
from cat_jax.analysis.pages.inputs import Kind, check_map, checked_shape, row_indices
from cat_jax.files import write_text
from cat_jax.offline_page import offline_page
from cat_jax.ranges import Bytes, check_number
from cat_jax.types import Float

FILES = resources.files("cat_jax.analysis.pages")
SCRIPTS = "values.js", "colours.js", "attention.js"


def attention_page(
    maps: Mapping[str, Float[np.ndarray, "N H Q K"]],
    tokens: Sequence[str],
    kinds: Sequence[Kind] | None = None,
    *,
    queries: Sequence[int] | None = None,
    title: str = "Attention maps",
    whole_heads: Sequence[Head] = (),
    whole_queries: Sequence[int] | None = None,
    limit_bytes: int = 30_000_000,
) -> str:
    """Return a page that shows the attention of every layer and head.

    The page holds each map, the means over heads, over layers and over both, eight bits a value
    (``cat_jax.analysis.pages.codes``), as far as the budget goes; all maps are there pooled, the
    largest value of each of at most 64 by 64 blocks. Two models take twice the bytes of one.

    Args:
        maps: Attention by name of the model, one or two, [N, H, Q, K] of one shape; read a head
            at a time, so that an array on disk will do.
        tokens: Text of each of the K tokens.
        kinds: Kind of each token, by which it is marked; "other" by default.
        queries: Token position of each of the Q queries, ascending; all tokens by default.
        title: Title of the page.
        whole_heads: Layer and head of maps to hold whole first where not all fit, "mean" for the
            mean over them: ``[(3, 2), (3, "mean")]``.
        whole_queries: Token positions of queries to hold whole in every head where not all maps
            fit; by default those that predict effects, or the last.
        limit_bytes: Most bytes that the values of one model take on the page; the rest of it is
            about 40 kB and the tokens.

    Raises:
        InputError: Shapes that do not fit, values that are no attention or of later tokens, or
            more asked to be whole than ``limit_bytes`` allows.
    """
    marks = ["other"] * len(tokens) if kinds is None else list(kinds)
    check_number("limit_bytes", limit_bytes, Bytes)
    shape = checked_shape(maps, tokens, marks, queries)
    rows = None if whole_queries is None else row_indices(shape, whole_queries)
    contents = choose(shape, limit_bytes, whole_heads, rows, _predicting(shape, marks))
    blocks: dict[str, str] = {}
    for number, (name, maps_NHQK) in enumerate(maps.items()):
        texts = _texts(name, maps_NHQK, shape, contents)
        blocks |= {f"{block}-{number}": text for block, text in texts.items()}
    data = {
        "title": title,
        "models": list(maps),
        "tokens": list(tokens),
        "kinds": marks,
        "kindNames": get_args(Kind),
        "queries": shape.queries,
        "layers": shape.layers,
        "heads": shape.heads,
        "bins": shape.bins,
        "maps": contents.maps,
        "rows": contents.rows,
        "bytes": contents.bytes,
        "largestError": LARGEST_ERROR,
    }
    return offline_page(
        "Attention maps",
        (FILES / "attention.html").read_text(),
        style=(FILES / "attention.css").read_text(),
        script="\n".join((FILES / name).read_text() for name in SCRIPTS),
        data=data,
        blocks=blocks,
    )


def save_attention_page(
    path: str | PathLike[str],
    maps: Mapping[str, Float[np.ndarray, "N H Q K"]],
    tokens: Sequence[str],
    kinds: Sequence[Kind] | None = None,
    **options: Any,
) -> None:
    """Write the page of ``attention_page``, which describes the options, whole or not at all."""
    write_text(path, attention_page(maps, tokens, kinds, **options))


def _predicting(shape: Shape, kinds: Sequence[str]) -> list[int]:
    """Return the indices of queries whose next token belongs to an effect, or of the last one."""
    found = [row for row, q in enumerate(shape.queries) if kinds[q + 1 : q + 2] == ["effect"]]
    return found or [len(shape.queries) - 1]


def _texts(name: str, maps_NHQK: Any, shape: Shape, contents: Contents) -> dict[str, str]:
    """Return codes of a model: a line for each map pooled, whole, or of its whole rows."""
    keys = np.arange(shape.keys)
    seen_QK = keys <= np.array(shape.queries)[:, None]
    texts: dict[str, dict[int, str]] = {"pooled": {}, "map": {}, "rows": {}}
    whole, rows = set(contents.maps), list(contents.rows)

    def add(cell: int, map_QK: np.ndarray) -> None:
        codes_QK = encode(map_QK)
        texts["pooled"][cell] = text_of(pool(codes_QK, shape.bins))
        if cell in whole:
            texts["map"][cell] = text_of(codes_QK[seen_QK])
        if rows:
            texts["rows"][cell] = text_of(codes_QK[rows][seen_QK[rows]])

    means_HQK = np.zeros((shape.heads + 1, *seen_QK.shape), np.float32)
    for layer in range(shape.layers):
        mean_QK = np.zeros(seen_QK.shape, np.float32)
        for head in range(shape.heads):
            map_QK = check_map(
                maps_NHQK[layer, head], seen_QK, f"{name!r}, layer {layer}, head {head}"
            )
            add(shape.cell((layer, head)), map_QK)
            mean_QK += map_QK / shape.heads
            means_HQK[head] += map_QK / shape.layers
        add(shape.cell((layer, "mean")), mean_QK)
        means_HQK[-1] += mean_QK / shape.layers
    for head in range(shape.heads + 1):
        add(shape.layers * (shape.heads + 1) + head, means_HQK[head])
    return {block: "\n".join(text for _, text in sorted(x.items())) for block, x in texts.items()}
