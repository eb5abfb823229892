"""How well proposals agree with annotated causes, where these are known."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from cat_jax.analysis.proposals.spans import Proposal
from cat_jax.annotation.agreement import edges_of
from cat_jax.annotation.opinions import Place
from cat_jax.data.records import Record

Ranked = Sequence[Sequence[Proposal]]


def causes_ranked_first(records: Sequence[Record], ranked: Ranked) -> float:
    """Return how many of the first proposals are annotated causes of the answer (R-precision).

    Of a record with k proposals that overlap an annotated cause, the first k are looked at; 1 where
    all of them do. Records of which none or all of the proposals do are left out.

    Args:
        records: Annotated records.
        ranked: Proposals for each, the largest effect first.

    Returns:
        The mean over the records; NaN if all are left out.
    """
    return _mean(hits[: hits.sum()].mean() for _, hits in _judged(records, ranked))


def causes_auroc(records: Sequence[Record], ranked: Ranked) -> float:
    """Return how often an annotated cause has a larger effect than what is none (AUROC).

    Effects count by size, of either sign; equal ones count half. Records of which none or all of
    the proposals are causes are left out.

    Args:
        records: Annotated records.
        ranked: Proposals for each, in any order.

    Returns:
        The mean over the records, 0.5 by chance; NaN if all are left out.
    """
    return _mean(
        stats.mannwhitneyu(sizes[hits], sizes[~hits])[0] / (hits.sum() * (~hits).sum())
        for sizes, hits in _judged(records, ranked)
    )


def _judged(records: Sequence[Record], ranked: Ranked) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield size of the effect, and whether it is a cause, of each proposal for a record."""
    for record, proposals in zip(records, ranked, strict=True):
        edges = edges_of(record)
        causes = [cause for effect, cause in edges if effect[1] > len(record.input)]
        hits = np.array([any(_overlap(x, cause) for cause in causes) for x in proposals], bool)
        if 0 < hits.sum() < len(hits):
            yield np.array([abs(x.effect) for x in proposals]), hits


def _overlap(proposal: Proposal, place: Place) -> bool:
    start = proposal.span.start or 0
    return start < place[1] and place[0] < start + len(proposal.span.text)


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")
