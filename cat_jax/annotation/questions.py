"""Questions that no answer is known of, and batch files of them.

The files are those of OpenAI's batch API, which hosted services and ``vllm run-batch`` read and
write: https://platform.openai.com/docs/guides/batch.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from etils import epath

from cat_jax.annotation.agreement import Keep
from cat_jax.annotation.annotate import (
    Clients,
    Outcome,
    annotate_record,
    as_clients,
    check_record,
)
from cat_jax.annotation.cache import AnswerCache, Question
from cat_jax.annotation.client import Answer, answer_of, request_body
from cat_jax.annotation.opinions import ask
from cat_jax.annotation.prior import Prior
from cat_jax.errors import InputError
from cat_jax.files import one_line, write_text

URL = "/v1/chat/completions"


class Unanswered(LookupError):
    """A question whose answer is not known."""

    def __init__(self, question: Question):
        super().__init__(question.key)
        self.question = question


class KnownAnswers(AnswerCache):
    """Answers that were paid for, and no others.

    Args:
        cache: Where they are.
    """

    def __init__(self, cache: AnswerCache):
        super().__init__()
        self._cache = cache

    def answer(self, question: Question) -> tuple[Answer, bool]:
        """Return the answer.

        Raises:
            Unanswered: It is not known.
        """
        known = self.get(question.key)
        if known is None:
            raise Unanswered(question)
        return known, False

    def get(self, key: str) -> Answer | None:
        """Return the answer of a key, None if there is none."""
        return self._cache.get(key)


def open_questions(
    records: Iterable[Any],
    prior: Prior,
    client: Clients,
    *,
    cache: AnswerCache | None = None,
    samples: int = 1,
    retry_rejects: bool = False,
) -> Iterator[Question]:
    """Yield the questions that ``annotate`` would ask now, each once.

    Where a reply is known that did not pass, that is the one that asks again.

    Raises:
        InputError: A record is a conversation, or samples would all be the same.
    """
    known = KnownAnswers(AnswerCache() if cache is None else cache)
    clients = as_clients(client, samples)
    seen: set[str] = set()
    for record in map(check_record, records):
        for one in clients:
            for sample in range(samples):
                try:
                    ask(
                        record,
                        prior,
                        one,
                        known,
                        sample=sample,
                        samples=samples,
                        retry=retry_rejects,
                    )
                except Unanswered as open_:
                    if open_.question.key not in seen:
                        seen.add(open_.question.key)
                        yield open_.question


def annotate_answered(
    records: Iterable[Any],
    prior: Prior,
    client: Clients,
    cache: AnswerCache,
    *,
    samples: int = 1,
    keep: Keep = "majority",
) -> Iterator[Outcome | None]:
    """Yield what ``annotate`` would make of each record without asking; None where it would ask.

    Raises:
        InputError: A record is a conversation, or samples would all be the same.
    """
    known, clients = KnownAnswers(cache), as_clients(client, samples)
    for record in map(check_record, records):
        try:
            yield annotate_record(record, prior, clients, known, samples, keep)
        except Unanswered:
            yield None


def write_batch(path: str | PathLike[str], questions: Iterable[Question]) -> int:
    """Write questions as a batch file; return their number.

    Raises:
        InputError: The file cannot be written.
    """
    lines = [
        json.dumps(
            {
                "custom_id": question.key,
                "method": "POST",
                "url": URL,
                "body": request_body(question.client, question.messages),
            }
        )
        for question in questions
    ]
    try:
        write_text(path, "".join(line + "\n" for line in lines))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({one_line(error)})") from error
    return len(lines)


@dataclass
class BatchResults:
    """What a file of batch results holds.

    Attributes:
        answered: Questions that it answers.
        missing: Questions that it does not.
        failed: Lines that say that a request failed, or hold no result, with the reason.
        repeated: Lines whose question an earlier line answers; the earlier one counts.
        unknown: Lines that answer no open question.
    """

    answered: int = 0
    missing: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.answered:,} answers are taken, {self.missing:,} are missing"]
        lines += [f"line {number}: {reason}" for number, reason in self.failed]
        for name, numbers in (("repeated", self.repeated), ("of no open question", self.unknown)):
            if numbers:
                lines.append(f"{name}: line {', '.join(map(str, numbers))}")
        return "\n".join(lines)


def read_batch(
    path: str | PathLike[str], questions: Iterable[Question], cache: AnswerCache
) -> BatchResults:
    """Take the answers of a batch, in any order, into a cache.

    Args:
        path: File of results.
        questions: Questions that are open.
        cache: Where the answers go.

    Raises:
        InputError: The file cannot be read, or no line of it is a result.
    """
    try:
        text = epath.Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    open_ = {question.key for question in questions}
    found, taken = BatchResults(), set[str]()
    lines = [pair for pair in enumerate(text.split("\n"), 1) if pair[1].strip()]
    if not any("custom_id" in line for _, line in lines):
        raise InputError(f"{path} has no results of a batch; give the file that the server made")
    for number, line in lines:
        _take(number, line, open_, taken, cache, found)
    found.answered, found.missing = len(taken), len(open_ - taken)
    return found


def _take(
    number: int,
    line: str,
    open_: set[str],
    taken: set[str],
    cache: AnswerCache,
    found: BatchResults,
) -> None:
    try:
        result = json.loads(line)
        key, response = result["custom_id"], result.get("response") or {}
        status, body = response.get("status_code", 200), response.get("body") or {}
        error = result.get("error")
    except (ValueError, TypeError, KeyError, AttributeError):
        found.failed.append((number, "is no result of a batch"))
        return
    if key in taken:
        found.repeated.append(number)
    elif key not in open_:
        found.unknown.append(number)
    elif error or status != 200 or not isinstance(body, Mapping) or not body.get("choices"):
        found.failed.append((number, f"the request failed ({_reason(error, status)})"))
    else:
        cache.put(key, answer_of(body))
        taken.add(key)


def _reason(error: Any, status: Any) -> str:
    """Return a reason without the server's words, which may repeat the prompt."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return str(code) if isinstance(code, str) and code.isidentifier() else f"status {status}"
