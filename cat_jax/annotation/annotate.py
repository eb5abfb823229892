"""Annotation of records by an assistant: asked, checked, asked once more, kept or rejected."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

from pydantic import ValidationError

from cat_jax.annotation.cache import AnswerCache, key_of
from cat_jax.annotation.checks import InvalidReply, locate
from cat_jax.annotation.client import Client
from cat_jax.annotation.prior import Prior
from cat_jax.annotation.prompt import Message, again, first_messages
from cat_jax.annotation.reply import Reply
from cat_jax.data.records import Record
from cat_jax.errors import InputError

ATTEMPTS = 2


@dataclass(frozen=True)
class Outcome:
    """What became of a record.

    Attributes:
        record: The record, annotated if its annotation was accepted, else as it was.
        reasons: Why it was rejected, a sentence each; empty if it was not.
        reply: What the assistant said last.
        attempts: How often it was asked.
        prompt_tokens: Tokens that it read for this record, in all attempts.
        completion_tokens: Tokens that it wrote.
        cached: Whether every answer had been paid for before.
    """

    record: Record
    reasons: tuple[str, ...] = ()
    reply: str = ""
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the record is annotated."""
        return not self.reasons


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


def annotate(
    records: Iterable[Any],
    prior: Prior,
    client: Client,
    *,
    cache: AnswerCache | None = None,
    concurrency: int = 8,
    retry_rejects: bool = False,
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Annotated:
    """Annotate records by an assistant that knows the prior; keep what passes the checks.

    Every span of an accepted annotation stands in the text at its character offset, causes before
    their effect, the answer among the effects, kinds and edges as in the prior's graph. What does
    not pass is asked for once more with the reasons, then rejected.

    Args:
        records: Prompts and answers; annotations that they have are replaced.
        prior: What the assistant is told.
        client: The assistant.
        cache: Answers that were paid for; the same questions are not asked again.
        concurrency: Questions that are open at a time.
        retry_rejects: Ask anew for records that were rejected in an earlier call with this cache.
        progress: Is called with each outcome, in the order of the records.

    Raises:
        InputError: A record is a conversation.
        ServerFailed: The assistant cannot be asked; its answers so far are in the cache.
    """
    done = Annotated()
    options = {"cache": cache, "concurrency": concurrency, "retry_rejects": retry_rejects}
    for outcome in annotate_each(records, prior, client, **options):
        done.outcomes.append(outcome)
        progress(outcome)
    return done


def annotate_each(
    records: Iterable[Any],
    prior: Prior,
    client: Client,
    *,
    cache: AnswerCache | None = None,
    concurrency: int = 8,
    retry_rejects: bool = False,
) -> Iterator[Outcome]:
    """Yield the outcome of each record, in their order; see ``annotate``."""
    kept = AnswerCache() if cache is None else cache
    waiting = iter(records)
    with ThreadPoolExecutor(concurrency) as pool:

        def ask(record: Any) -> Future[Outcome]:
            if not isinstance(record, Record):
                raise InputError(
                    f"{getattr(record, 'where', '') or 'a record'}: an assistant annotates prompts "
                    "and answers, no conversations"
                )
            return pool.submit(annotate_record, record, prior, client, kept, retry=retry_rejects)

        open_ = [ask(record) for record in islice(waiting, 4 * concurrency)]
        try:
            while open_:
                yield open_.pop(0).result()
                open_ += [ask(record) for record in islice(waiting, 1)]
        finally:
            for future in open_:
                future.cancel()


def annotate_record(
    record: Record, prior: Prior, client: Client, cache: AnswerCache, *, retry: bool = False
) -> Outcome:
    """Annotate a record; ask anew what was rejected before only with ``retry``.

    Raises:
        ServerFailed: The assistant cannot be asked.
    """
    first = first_messages(prior, record)
    outcome = _asked(Outcome(record, cached=True), first, prior, client, cache, 0)
    sample = 1
    while not outcome.accepted:
        known = cache.get(key_of(client, first, sample)) is not None
        if not known and not (retry and outcome.cached):
            break
        outcome = _asked(outcome, first, prior, client, cache, sample)
        sample += 1
    return outcome


def _asked(
    outcome: Outcome,
    messages: list[Message],
    prior: Prior,
    client: Client,
    cache: AnswerCache,
    sample: int,
) -> Outcome:
    """Ask, and once more with the reasons if the reply does not pass."""
    for _ in range(ATTEMPTS):
        key = key_of(client, messages, sample)
        answer, is_new = cache.answer(key, partial(client.complete, messages))
        outcome = replace(
            outcome,
            reply=answer.text,
            attempts=outcome.attempts + 1,
            prompt_tokens=outcome.prompt_tokens + answer.prompt_tokens,
            completion_tokens=outcome.completion_tokens + answer.completion_tokens,
            cached=outcome.cached and not is_new,
            reasons=(),
        )
        try:
            important = locate(parse_reply(answer.text), outcome.record, prior)
        except InvalidReply as error:
            outcome = replace(outcome, reasons=tuple(error.reasons))
            messages = again(messages, answer.text, error.reasons)
        else:
            return replace(outcome, record=replace(outcome.record, important=important))
    return outcome


def parse_reply(text: str) -> Reply:
    """Return the reply in an assistant's words, repaired where its JSON is broken.

    Raises:
        InvalidReply: There is no reply in them.
    """
    try:
        return Reply.model_validate(_json_in(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the reply"
        raise InvalidReply([f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}"]) from None


def _json_in(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    start = text.find("{")
    if start < 0 or find_spec("json_repair") is None:
        raise InvalidReply(["the reply is no JSON; write JSON alone"])
    from json_repair import repair_json

    return repair_json(text[start:], return_objects=True)
