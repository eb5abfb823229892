"""One opinion of an assistant on a record: asked, checked, asked once more, kept or rejected."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from cat_jax.annotation.cache import AnswerCache, Question
from cat_jax.annotation.checks import InvalidReply, locate
from cat_jax.annotation.client import Client
from cat_jax.annotation.prior import Prior
from cat_jax.annotation.prompt import Message, again, first_messages
from cat_jax.annotation.reply import Reply
from cat_jax.data.records import Annotation, Record, Span

ATTEMPTS = 2

Place = tuple[int, int]
"""First character of a span in a record's text, and the one behind its last."""
Edge = tuple[Place, Place]
"""Places of an effect and of one of its causes."""


@dataclass(frozen=True)
class Opinion:
    """What an assistant's answer to a record came to.

    Attributes:
        model: Name of the assistant.
        important: The annotations, each span at its character offset; empty if it was rejected.
        kinds: Kind of each span.
        reasons: Why it was rejected, a sentence each; empty if it was not.
        reply: What the assistant said last.
        attempts: How often it was asked.
        prompt_tokens: Tokens that it read, in all attempts.
        completion_tokens: Tokens that it wrote.
        cached: Whether every answer had been paid for before.
    """

    model: str
    important: tuple[Annotation, ...] = ()
    kinds: Mapping[Place, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    reply: str = ""
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = True

    @property
    def edges(self) -> frozenset[Edge]:
        """Return what depends on what, by place."""
        return frozenset(
            (place_of(annotation.effect), place_of(cause))
            for annotation in self.important
            for cause in annotation.causes
        )


def place_of(span: Span) -> Place:
    """Return the place of a span with an offset."""
    assert span.start is not None
    return span.start, span.start + len(span.text)


def ask(
    record: Record,
    prior: Prior,
    client: Client,
    cache: AnswerCache,
    *,
    sample: int = 0,
    samples: int = 1,
    retry: bool = False,
) -> Opinion:
    """Return an opinion on a record; ask anew what was rejected before only with ``retry``.

    Args:
        record: The record.
        prior: What the assistant is told.
        client: The assistant.
        cache: Answers that were paid for.
        sample: Which of several opinions of this assistant, from 0.
        samples: How many there are.
        retry: Whether one that was rejected in an earlier call is asked for anew.

    Raises:
        ServerFailed: The assistant cannot be asked.
    """
    first = first_messages(prior, record)
    opinion = _asked(Opinion(client.model), record, first, prior, client, cache, sample)
    while opinion.reasons:
        sample += samples
        known = cache.get(Question(client, first, sample).key) is not None
        if not known and not (retry and opinion.cached):
            break
        opinion = _asked(opinion, record, first, prior, client, cache, sample)
    return opinion


def _asked(
    opinion: Opinion,
    record: Record,
    messages: list[Message],
    prior: Prior,
    client: Client,
    cache: AnswerCache,
    sample: int,
) -> Opinion:
    """Ask, and once more with the reasons if the reply does not pass."""
    for _ in range(ATTEMPTS):
        answer, is_new = cache.answer(Question(client, messages, sample))
        opinion = replace(
            opinion,
            reply=answer.text,
            attempts=opinion.attempts + 1,
            prompt_tokens=opinion.prompt_tokens + answer.prompt_tokens,
            completion_tokens=opinion.completion_tokens + answer.completion_tokens,
            cached=opinion.cached and not is_new,
            reasons=(),
        )
        try:
            reply = parse_reply(answer.text)
            important = locate(reply, record, prior)
        except InvalidReply as error:
            opinion = replace(opinion, reasons=tuple(error.reasons))
            messages = again(messages, answer.text, error.reasons)
        else:
            return replace(opinion, important=important, kinds=dict(_kinds(reply, important)))
    return opinion


def _kinds(reply: Reply, important: tuple[Annotation, ...]) -> Iterator[tuple[Place, str]]:
    for said, annotation in zip(reply.annotations, important, strict=True):
        yield place_of(annotation.effect), said.effect.kind
        for words, cause in zip(said.causes, annotation.causes, strict=True):
            yield place_of(cause), words.kind


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
