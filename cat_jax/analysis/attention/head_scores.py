"""Scores of attention heads over records, ranked with intervals, and compared between models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cat_jax.analysis.heatmaps import Panel, layer_figure
from cat_jax.errors import InputError, name_hint
from cat_jax.evaluation.statistics import Score, mean_score
from cat_jax.ranges import Count, check_number


class RankedHead(NamedTuple):
    """A head and its score.

    Attributes:
        layer: Layer, from 0.
        head: Head, from 0.
        score: Mean over records with its 95 % bootstrap interval.
    """

    layer: int
    head: int
    score: Score


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores by record, layer and head.

    Attributes:
        by_record: By name, [R, N, H] float; NaN of records that have nothing to score.
    """

    by_record: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the mean over records, [N, H]; NaN if none has anything to score.

        Raises:
            InputError: There is no such score.
        """
        values_RNH = self._known(name)
        kept_RNH = values_RNH[_scored(values_RNH)]
        return kept_RNH.mean(0) if len(kept_RNH) else np.full(values_RNH.shape[1:], np.nan)

    def ranked(self, name: str, top: int = 10) -> list[RankedHead]:
        """Return the heads of the largest means, of either sign, with intervals over records.

        The intervals are those of each head by itself: that the first of many heads was chosen
        because it is the first makes its score look larger than it is. Rank on some records and
        report others where that matters.

        Args:
            name: Which score.
            top: Most heads to return.

        Raises:
            InputError: There is no such score, no record has anything to score, or ``top`` is
                below one.
        """
        values_RNH = self._known(name)
        kept_RNH = values_RNH[_scored(values_RNH)]
        if not len(kept_RNH):
            raise InputError(f"no record has anything to score for {name!r}")
        check_number("top", top, Count)
        order = np.argsort(-np.abs(kept_RNH.mean(0)), axis=None, kind="stable")[:top]
        places = [divmod(int(flat), kept_RNH.shape[2]) for flat in order]
        return [RankedHead(n, h, mean_score([kept_RNH[:, n, h]], crossed=True)) for n, h in places]

    def minus(self, before: "HeadScores") -> "HeadScores":
        """Return the differences to another model's scores of the same records, record by record.

        The intervals of ``ranked`` are then paired ones. Scores do not know their records: give
        both models the same ones in the same order.

        Raises:
            InputError: The scores are of other names, records or heads.
        """
        if self.by_record.keys() != before.by_record.keys():
            raise InputError(
                f"scores {', '.join(self.by_record)} cannot be compared with "
                f"{', '.join(before.by_record)}"
            )
        for name, values in self.by_record.items():
            if values.shape != before.by_record[name].shape:
                raise InputError(
                    f"{name!r} has shape {values.shape}, before {before.by_record[name].shape}: "
                    "compare two models of one shape on the same records"
                )
        return HeadScores({x: y - before.by_record[x] for x, y in self.by_record.items()})

    def figure(self, title: str = "", *, names: Sequence[str] | None = None):
        """Draw the means by layer and head as a matplotlib ``Figure``.

        Each score has a panel and a scale of its own.

        Args:
            title: Title of the figure.
            names: Scores to draw; None draws all.

        Raises:
            InputError: There is no such score, or none is named.
        """
        panels = {name: Panel(self[name], unit=f"share, {name}")
                  for name in (self.by_record if names is None else names)}  # fmt: skip
        return layer_figure(panels, title)

    def _known(self, name: str) -> np.ndarray:
        if name not in self.by_record:
            raise InputError(f"no score {name!r}: {name_hint(name, self.by_record)}")
        return self.by_record[name]


def _scored(values_RNH: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(values_RNH).all((1, 2)))
