"""Attention maps of a text with named axes, and views of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal

import numpy as np

from cat_jax.analysis.attention.text import Kind, Places, ReadText, Words
from cat_jax.errors import InputError, name_hint
from cat_jax.ranges import Index, check_number

Axis = Literal["layers", "heads", "queries", "keys"]
AXES: tuple[Axis, ...] = ("layers", "heads", "queries", "keys")


@dataclass(frozen=True, eq=False, repr=False)
class AttentionMaps:
    """Attention of a text, or what is computed from it; ``numpy.asarray`` takes it.

    Views are new ``AttentionMaps`` without the axes that they choose from or average over::

        maps.layer(3).head(2).values  # [queries, keys]
        maps.mean("layers", "heads")
        maps.between("Smoking: 8", "High Risk").values  # [layers, heads]

    Attributes:
        values: float32, one axis for each of ``axes``.
        axes: Names of the axes that are left, in the order "layers", "heads", "queries", "keys".
        text: The text and its tokens.
        queries: [Q] positions of the queries that were read, ascending.
        view: What was chosen and averaged over, such as ("layer 3", "mean over heads").
    """

    values: np.ndarray
    axes: tuple[Axis, ...]
    text: ReadText
    queries: np.ndarray
    view: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return the text of each token, [T]."""
        return self.text.tokens

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kind of each token: "cause", "effect", "spurious" or "other", [T]."""
        return self.text.kinds

    def layer(self, layer: int) -> "AttentionMaps":
        """Return one layer.

        Raises:
            InputError: There is no such layer, or no axis of layers is left.
        """
        return self._take("layers", layer)

    def head(self, head: int) -> "AttentionMaps":
        """Return one head.

        Raises:
            InputError: There is no such head, or no axis of heads is left.
        """
        return self._take("heads", head)

    def mean(self, *axes: Axis) -> "AttentionMaps":
        """Return the mean over axes.

        Raises:
            InputError: None is named, one twice, or one is not there.
        """
        if not axes:
            raise InputError(f"name the axes to average over: {', '.join(self.axes)}")
        if len(set(axes)) < len(axes):
            raise InputError(f"axes {', '.join(axes)}: name each once")
        places = tuple(self._place(axis) for axis in axes)
        view = f"mean over {' and '.join(axes)}"
        return self._view(self.values.mean(places), axes, view)

    def positions(self, words: Words) -> list[int]:
        """Return the positions of the tokens of words.

        Raises:
            InputError: The text lacks them.
        """
        return self.text.positions(words)

    def between(
        self, causes: Places | None = None, answer: Places | None = None
    ) -> "AttentionMaps":
        """Return how much attention the answer's queries pay to causes.

        It is summed over the keys and averaged over the queries; the other axes stay.

        Args:
            causes: Words, which are found as those of annotations are; spans; positions of keys;
                or several of these. None takes the tokens of the kind "cause".
            answer: The same: of words the queries that predict their tokens, one position before
                each; a position is that of a query itself. None takes the kind "effect".

        Raises:
            InputError: Words are not in the text, positions outside of it, queries were not read,
                or the axes of queries and keys are no longer there.
        """
        rows, keys = self._rows(self.text.queries(answer)), self.text.keys(causes)
        where = self._place("queries"), self._place("keys")
        chosen = self.values.take(rows, where[0]).take(keys, where[1])
        words = (_named(x) for x in (answer, causes))
        view = f"from {next(words) or 'the answer'} to {next(words) or 'its causes'}"
        return self._view(chosen.sum(where[1]).mean(where[0]), ("queries", "keys"), view)

    def of_queries(self, answer: Places | None = None) -> "AttentionMaps":
        """Return some queries alone, as ``between`` takes them; their axis stays.

        Raises:
            InputError: As ``between``.
        """
        rows = self._rows(self.text.queries(answer))
        values = self.values.take(rows, self._place("queries"))
        return replace(self, values=values, queries=self.queries[rows])

    def save_html(
        self,
        path: str | PathLike[str],
        *,
        name: str = "model",
        beside: Mapping[str, "AttentionMaps"] | None = None,
        **options: Any,
    ) -> None:
        """Write a page of its own to look at the maps, without a network (docs/attention_page.md).

        Args:
            path: File to write, whole or not at all.
            name: Name of the model on the page.
            beside: Maps of another model of the same tokens, by its name.
            **options: As those of ``cat.attention_page``: title, whole_heads, whole_queries,
                limit_bytes.

        Raises:
            InputError: An axis is gone, two models have one name, other tokens or queries were
                read beside, or as ``cat.attention_page``.
        """
        from cat_jax.analysis.pages import save_attention_page

        if beside is not None and not isinstance(beside, Mapping):
            raise InputError(f"beside maps names to maps: {{'tuned': maps}}, got {beside!r}")
        if beside and name in beside:
            raise InputError(f"two models are named {name!r}; give each a name of its own")
        shown = {name: self, **(beside or {})}
        for title, maps in shown.items():
            if maps.axes != AXES:
                raise InputError(
                    f"the maps of {title!r} have the axes {', '.join(maps.axes) or 'none'}; a page "
                    "needs layers, heads, queries and keys: save what read_attention returned"
                )
            if maps.tokens != self.tokens or not np.array_equal(maps.queries, self.queries):
                raise InputError(
                    f"{title!r} read other tokens or queries than {name!r}; read the same text "
                    "with both models"
                )
        values = {title: maps.values for title, maps in shown.items()}
        queries = self.queries.tolist()
        save_attention_page(path, values, self.tokens, self.kinds, queries=queries, **options)

    def _rows(self, queries: Sequence[int]) -> list[int]:
        """Return the indices of queries on their axis."""
        row_of = {int(query): row for row, query in enumerate(self.queries)}
        missing = [query for query in queries if query not in row_of]
        if missing:
            raise InputError(
                f"query {missing[0]} was not read; name it among the queries of read_attention"
            )
        return [row_of[query] for query in queries]

    def _take(self, axis: Axis, index: int) -> "AttentionMaps":
        place = self._place(axis)
        size = self.values.shape[place]
        check_number(axis[:-1], index, Index)
        if not -size <= index < size:
            raise InputError(f"there are {axis} 0 to {size - 1}, got {index}")
        view = f"{axis[:-1]} {index % size}"
        return self._view(self.values.take(index, place), (axis,), view)

    def _place(self, axis: Axis) -> int:
        if axis not in self.axes:
            hint = name_hint(axis, self.axes) if self.axes else "none is left"
            raise InputError(f"these maps have no axis {axis!r}: {hint}")
        return self.axes.index(axis)

    def _view(self, values: np.ndarray, gone: Sequence[Axis], view: str) -> "AttentionMaps":
        left = tuple(axis for axis in self.axes if axis not in gone)
        return replace(
            self, values=np.asarray(values, np.float32), axes=left, view=(*self.view, view)
        )

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype) if copy else np.asarray(self.values, dtype)

    def __repr__(self) -> str:
        sizes = [f"{axis}: {size}" for axis, size in zip(self.axes, self.values.shape, strict=True)]
        return f"AttentionMaps({', '.join([*self.view, *sizes]) or 'a number'})"

    def _repr_html_(self) -> str:
        from cat_jax.analysis.attention.html import html_fragment

        return html_fragment(self)


def _named(places: Places | None) -> str:
    return "" if places is None else repr(places)
