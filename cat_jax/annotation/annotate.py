"""Annotation of records by assistants, each answer paid for once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from cat_jax.annotation.agreement import Agreement, Keep, combine, krippendorff_alpha
from cat_jax.annotation.cache import AnswerCache
from cat_jax.annotation.client import Client
from cat_jax.annotation.opinions import Opinion, ask
from cat_jax.annotation.prior import Prior
from cat_jax.data.records import Record
from cat_jax.errors import InputError

Clients = Client | Sequence[Client]
"""One assistant or several."""


@dataclass(frozen=True)
class Outcome:
    """What became of a record.

    Attributes:
        record: The record, annotated if its annotation was accepted, else as it was.
        opinions: What each assistant said of it, each time.
        reasons: Why it was rejected, a sentence each; empty if it was not.
        agreement: How far several opinions agree; None if there is one, or none that passed.
    """

    record: Record
    opinions: tuple[Opinion, ...]
    reasons: tuple[str, ...] = ()
    agreement: Agreement | None = None

    @property
    def accepted(self) -> bool:
        """Whether the record is annotated."""
        return not self.reasons

    @property
    def reply(self) -> str:
        """Return what was said last; of several opinions, in the first that was rejected."""
        return next((x for x in self.opinions if x.reasons), self.opinions[0]).reply

    @property
    def attempts(self) -> int:
        """Return how often assistants were asked."""
        return sum(opinion.attempts for opinion in self.opinions)

    @property
    def prompt_tokens(self) -> int:
        """Return the number of tokens that they read."""
        return sum(opinion.prompt_tokens for opinion in self.opinions)

    @property
    def completion_tokens(self) -> int:
        """Return the number of tokens that they wrote."""
        return sum(opinion.completion_tokens for opinion in self.opinions)

    @property
    def cached(self) -> bool:
        """Whether every answer had been paid for before."""
        return all(opinion.cached for opinion in self.opinions)


@dataclass
class Annotated:
    """All outcomes, in the order of the records.

    Attributes:
        outcomes: An outcome for each record.
    """

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        """Return the annotated records."""
        return [outcome.record for outcome in self.outcomes if outcome.accepted]

    @property
    def rejects(self) -> list[Outcome]:
        """Return what was rejected."""
        return [outcome for outcome in self.outcomes if not outcome.accepted]

    @property
    def alpha(self) -> float:
        """Return Krippendorff's alpha of the opinions that passed; NaN without several."""
        return krippendorff_alpha(
            (outcome.record.text, [x.edges for x in outcome.opinions if not x.reasons])
            for outcome in self.outcomes
        )


def annotate(
    records: Iterable[Any],
    prior: Prior,
    client: Clients,
    *,
    cache: AnswerCache | None = None,
    samples: int = 1,
    keep: Keep = "majority",
    concurrency: int = 8,
    retry_rejects: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Annotated:
    """Annotate records by an assistant that knows the prior; keep what passes the checks.

    Every span of an accepted annotation stands in the text at its character offset, causes before
    their effect, the answer among the effects, kinds and edges as in the prior's graph. What does
    not pass is asked for once more with the reasons, then rejected.

    With several opinions, from several assistants or samples of one, an edge is kept if most of
    those that pass the checks name it, or all. A record is rejected where half of them or more do
    not pass, or no edge to the answer is left.

    Args:
        records: Prompts and answers; annotations that they have are replaced.
        prior: What the assistant is told.
        client: The assistant, or several.
        cache: Answers that were paid for; the same questions are not asked again.
        samples: How often each assistant is asked.
        keep: Which edges of several opinions are kept.
        concurrency: Records that are asked about at a time.
        retry_rejects: Ask anew for records that were rejected in an earlier call with this cache.
        progress: Is called with each outcome, in the order of the records.

    Raises:
        InputError: A record is a conversation, or samples would all be the same.
        ServerFailed: The assistant cannot be asked; its answers so far are in the cache.
        OverBudget: A ``Budget`` is used up; likewise.
    """
    done = Annotated()
    for outcome in annotate_each(
        records,
        prior,
        client,
        cache=cache,
        samples=samples,
        keep=keep,
        concurrency=concurrency,
        retry_rejects=retry_rejects,
    ):
        done.outcomes.append(outcome)
        progress(outcome)
    return done


def annotate_each(
    records: Iterable[Any],
    prior: Prior,
    client: Clients,
    *,
    cache: AnswerCache | None = None,
    samples: int = 1,
    keep: Keep = "majority",
    concurrency: int = 8,
    retry_rejects: bool = False,
) -> Iterator[Outcome]:
    """Yield the outcome of each record, in their order; see ``annotate``."""
    kept = AnswerCache() if cache is None else cache
    clients = as_clients(client, samples)
    waiting = map(check_record, records)
    with ThreadPoolExecutor(concurrency) as pool:

        def submit(record: Record) -> Future[Outcome]:
            return pool.submit(
                annotate_record, record, prior, clients, kept, samples, keep, retry=retry_rejects
            )

        open_ = [submit(record) for record in islice(waiting, 4 * concurrency)]
        try:
            while open_:
                yield open_.pop(0).result()
                open_ += [submit(record) for record in islice(waiting, 1)]
        finally:
            for future in open_:
                future.cancel()


def as_clients(client: Clients, samples: int) -> list[Client]:
    """Return the assistants.

    Raises:
        InputError: There are none, or samples of one would all be the same.
    """
    clients = list(client) if isinstance(client, Sequence) else [client]
    if not clients:
        raise InputError("no assistant is given; name one")
    if samples > 1 and any(x.parameters.get("temperature") == 0 for x in clients):
        raise InputError(
            f"{samples} samples at temperature 0 are all the same; set a temperature such as 0.7"
        )
    return clients


def check_record(record: Any) -> Record:
    """Return what is a record.

    Raises:
        InputError: It is a conversation.
    """
    if not isinstance(record, Record):
        raise InputError(
            f"{getattr(record, 'where', '') or 'a record'}: an assistant annotates prompts "
            "and answers, no conversations"
        )
    return record


def annotate_record(
    record: Record,
    prior: Prior,
    clients: Sequence[Client],
    cache: AnswerCache,
    samples: int = 1,
    keep: Keep = "majority",
    *,
    retry: bool = False,
) -> Outcome:
    """Annotate one record; see ``annotate``.

    Raises:
        ServerFailed: An assistant cannot be asked.
    """
    opinions = tuple(
        ask(record, prior, client, cache, sample=sample, samples=samples, retry=retry)
        for client in clients
        for sample in range(samples)
    )
    rejected = [opinion for opinion in opinions if opinion.reasons]
    outcome = Outcome(record, opinions)
    if 2 * len(rejected) >= len(opinions):
        reasons = dict.fromkeys(reason for opinion in rejected for reason in opinion.reasons)
        return replace(outcome, reasons=tuple(reasons))
    if len(opinions) == 1:
        return replace(outcome, record=replace(record, important=opinions[0].important))
    important, agreement = combine(record, opinions, prior, keep)
    outcome = replace(outcome, agreement=agreement)
    if not important:
        lone = "the opinions agree on nothing that the answer depends on"
        return replace(outcome, reasons=(lone,))
    return replace(outcome, record=replace(record, important=important))
