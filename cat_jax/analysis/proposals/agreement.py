"""How far ways to rank words agree, record by record.

Agreement is no proof of either: M. Neely et al. 2022, "A Song of (Dis)agreement" (arXiv
2205.04559), find that no two ways agree well on transformers, and advise against rank correlation
as a measure of how good an explanation is. What a model uses is measured by changing its input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from cat_jax.analysis.proposals.propose import By, propose_causes
from cat_jax.analysis.proposals.scores import Ranked
from cat_jax.analysis.proposals.spans import Proposal
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.statistics import Score, mean_score
from cat_jax.markdown import markdown_table
from cat_jax.models import LanguageModel
from cat_jax.ranges import Count, check_number

WAYS: tuple[By, ...] = ("replacement", "removal", "gradient", "attention")


@dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of two ways to rank the words of R records, by the sizes of their effects.

    Attributes:
        first: One way.
        second: The other.
        tau: [R] Kendall's tau-b of the sizes, -1 to 1, 0 by chance; NaN of records with fewer than
            two words, or where a way finds all equal.
        overlap: [R] share of the ``top`` largest that both have; NaN of records of no more words.
        chance: [R] what the overlap is by chance.
        top: How many words are the largest.
    """

    first: str
    second: str
    tau: np.ndarray
    overlap: np.ndarray
    chance: np.ndarray
    top: int

    @property
    def mean_tau(self) -> Score:
        """Return the mean over records with its 95 % bootstrap interval.

        Raises:
            InputError: No record has a tau.
        """
        return _mean(self.tau)

    @property
    def mean_overlap(self) -> Score:
        """Return the mean over records with its 95 % bootstrap interval.

        Raises:
            InputError: No record has an overlap.
        """
        return _mean(self.overlap)


def explanation_agreement(
    model: LanguageModel,
    records: Sequence[Record],
    *,
    ways: Sequence[By] = WAYS,
    top: int = 3,
    **options: Any,
) -> list[Agreement]:
    """Rank the words of records in several ways, and compare every two of them.

    Args:
        model: The model.
        records: Prompts and answers.
        ways: What to compare, as ``by`` of ``propose_causes``: "replacement" and "removal" change
            the text, "gradient" and "attention" read the model.
        top: Words of a record that count as the largest.
        **options: What else ``propose_causes`` takes, such as ``spans`` and ``draw``.

    Raises:
        InputError: As ``propose_causes`` and ``ranking_agreement``.
    """
    rankings = {way: propose_causes(model, records, by=way, **options) for way in ways}
    return ranking_agreement(rankings, top=top)


def ranking_agreement(rankings: Mapping[str, Ranked], *, top: int = 3) -> list[Agreement]:
    """Compare every two rankings of the same words of the same records.

    Args:
        rankings: By name, the proposals for each record.
        top: Words of a record that count as the largest.

    Raises:
        InputError: There are fewer than two rankings, or they are of other words.
    """
    check_number("top", top, Count)
    if len(rankings) < 2:
        raise InputError("agreement is between at least two rankings; name more ways")
    return [
        _compare(one, other, rankings[one], rankings[other], top)
        for one, other in combinations(rankings, 2)
    ]


def agreement_markdown(found: Sequence[Agreement]) -> str:
    """Return a table of the means with their intervals."""
    rows = [
        [f"{x.first}, {x.second}", _cell(x.mean_tau), _cell(x.mean_overlap),
         f"{np.nanmean(x.chance):.2f}"]
        for x in found
    ]  # fmt: skip
    columns = ["ranked by", "Kendall's tau", f"overlap of the first {found[0].top}", "by chance"]
    return markdown_table(columns, rows, ("left", "right", "right", "right"))


def _compare(first: str, second: str, one: Ranked, other: Ranked, top: int) -> Agreement:
    if len(one) != len(other):
        raise InputError(f"{first!r} ranks {len(one)} records, {second!r} {len(other)}")
    tau_R, overlap_R, chance_R = np.full((3, len(one)), np.nan)
    for n, (a, b) in enumerate(zip(one, other, strict=True)):
        places = [x.span for x in a]
        sizes = {x.span: abs(x.effect) for x in b}
        if sizes.keys() != set(places):
            raise InputError(f"record {n + 1}: {first!r} and {second!r} rank different words")
        sizes_b = [sizes[place] for place in places]
        tau_R[n] = _tau([abs(x.effect) for x in a], sizes_b)
        if len(places) > top:
            overlap_R[n] = len(_first(a, top) & _first(b, top)) / top
            chance_R[n] = top / len(places)
    return Agreement(first, second, tau_R, overlap_R, chance_R, top)


def _tau(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) < 2 or len(set(one)) == 1 or len(set(other)) == 1:
        return float("nan")
    return float(stats.kendalltau(one, other).statistic)  # pyright: ignore


def _first(proposals: Sequence[Proposal], top: int) -> set[Any]:
    return {x.span for x in sorted(proposals, key=lambda x: -abs(x.effect))[:top]}


def _mean(values_R: np.ndarray) -> Score:
    kept = values_R[np.isfinite(values_R)]
    if not len(kept):
        raise InputError("no record has enough words to compare rankings of; give longer prompts")
    return mean_score([kept], crossed=True)


def _cell(score: Score) -> str:
    return f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"
