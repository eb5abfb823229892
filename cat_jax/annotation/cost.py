"""What annotation costs: a plan before it starts, and a limit that it keeps."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition
from typing import Annotated, Any

from cat_jax.annotation.annotate import Clients
from cat_jax.annotation.cache import AnswerCache
from cat_jax.annotation.client import Answer, Client
from cat_jax.annotation.opinions import ATTEMPTS
from cat_jax.annotation.prior import Prior
from cat_jax.annotation.prompt import Message
from cat_jax.annotation.questions import open_questions
from cat_jax.annotation.reply import Reply
from cat_jax.ranges import Range, check_ranges

BYTES_PER_TOKEN = 4
"""Of English text in the tokenizers of today's assistants, about; no token has less than one."""
SCHEMA_BYTES = len(json.dumps(Reply.model_json_schema()))


class OverBudget(RuntimeError):
    """The next question might cost more than is left; what was answered is kept."""


@dataclass(frozen=True)
class Prices:
    """Prices of an assistant, in any currency.

    Attributes:
        input: Of a million tokens that it reads.
        output: Of a million tokens that it writes.
    """

    input: Annotated[float, Range(ge=0)]
    output: Annotated[float, Range(ge=0)]

    def __post_init__(self):
        check_ranges(self, "prices")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what this many tokens cost."""
        return (self.input * prompt_tokens + self.output * completion_tokens) / 1e6


@dataclass(frozen=True)
class Plan:
    """What is still to be asked; tokens are estimated at four bytes each.

    Attributes:
        records: Records to annotate.
        opinions: Opinions on all of them.
        requests: Questions that no answer is known of, each asked once.
        prompt_tokens: Tokens to read.
        completion_tokens: Tokens to write, if replies are as long as those of the examples.
        most_tokens: Tokens to read and to write if all is asked twice and replies are as long as
            they may be.
        prices: Prices; None if they are not known.
        requests_per_minute: Rate limit; None if it is not known.
    """

    records: int
    opinions: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    most_tokens: tuple[int, int]
    prices: Prices | None = None
    requests_per_minute: float | None = None

    @property
    def cost(self) -> float | None:
        """Return what it costs; None without prices."""
        if self.prices is None:
            return None
        return self.prices.cost(self.prompt_tokens, self.completion_tokens)

    @property
    def most(self) -> float | None:
        """Return what it costs if all is asked twice at full length; None without prices."""
        return None if self.prices is None else self.prices.cost(*self.most_tokens)

    def __str__(self) -> str:
        lines = [
            f"{self.records:,} records, {self.opinions:,} opinions, of which "
            f"{self.opinions - self.requests:,} are answered",
            f"{self.requests:,} requests, about {self.prompt_tokens:,} tokens to read and "
            f"{self.completion_tokens:,} to write",
        ]
        if self.cost is not None:
            lines.append(f"cost: about {self.cost:.2f}, at most {self.most:.2f}")
        if self.requests_per_minute is not None:
            minutes = self.requests / self.requests_per_minute
            lines.append(f"time at the rate limit: {math.ceil(minutes):,} min")
        return "\n".join(lines)


def plan(
    records: Iterable[Any],
    prior: Prior,
    client: Clients,
    *,
    cache: AnswerCache | None = None,
    samples: int = 1,
    retry_rejects: bool = False,
    prices: Prices | None = None,
    requests_per_minute: float | None = None,
) -> Plan:
    """Return what annotation would ask, without asking.

    Args:
        records: Records to annotate.
        prior: Prior.
        client: The assistant, or several.
        cache: Answers that were paid for.
        samples: How often each assistant is asked.
        retry_rejects: Whether records that were rejected are asked for anew.
        prices: What tokens cost.
        requests_per_minute: What the server allows.

    Raises:
        InputError: A record is a conversation, or samples would all be the same.
    """
    given = list(records)
    clients = list(client) if isinstance(client, Sequence) else [client]
    questions = list(
        open_questions(
            given, prior, client, cache=cache, samples=samples, retry_rejects=retry_rejects
        )
    )
    read = [_prompt_bytes(question.messages) // BYTES_PER_TOKEN for question in questions]
    examples = [len(reply.model_dump_json().encode()) for _, reply in prior.examples]
    reply = sum(examples) / len(examples) / BYTES_PER_TOKEN
    longest = [int(question.client.parameters.get("max_tokens", reply)) for question in questions]
    twice = sum(2 * a + b for a, b in zip(read, longest, strict=True))
    return Plan(
        records=len(given),
        opinions=len(given) * len(clients) * samples,
        requests=len(questions),
        prompt_tokens=sum(read),
        completion_tokens=round(len(questions) * reply),
        most_tokens=(twice, ATTEMPTS * sum(longest)),
        prices=prices,
        requests_per_minute=requests_per_minute,
    )


@dataclass
class Budget:
    """Money that assistants may cost together.

    A question is asked only when it can be paid for together with those that are open, if its
    reply is as long as may be and each byte of it is a token: the limit is kept, not only watched.

    Attributes:
        prices: What tokens cost.
        most: What may be spent.
        spent: What was spent.
    """

    prices: Prices
    most: float = math.inf
    spent: float = 0.0
    _reserved: float = field(default=0.0, repr=False)
    _change: Condition = field(default_factory=Condition, repr=False)

    def limit(self, client: Client) -> Client:
        """Return an assistant that is paid from here."""
        return _Limited(client, self)

    def reserve(self, bound: float) -> None:
        """Wait until a question that costs at most ``bound`` can be paid.

        Raises:
            OverBudget: It cannot, when no other is open.
        """
        with self._change:
            while self.spent + self._reserved + bound > self.most:
                if not self._reserved:
                    raise OverBudget(
                        f"{self.spent:.2f} are spent, and the next question may cost {bound:.2f}, "
                        f"more than is left of {self.most:.2f}"
                    )
                self._change.wait()
            self._reserved += bound

    def settle(self, bound: float, cost: float) -> None:
        """Replace what was reserved by what was paid."""
        with self._change:
            # Rounding must not leave a trace that the next question would wait for.
            self._reserved = max(0.0, self._reserved - bound)
            if self._reserved < 1e-12:
                self._reserved = 0.0
            self.spent += cost
            self._change.notify_all()


class _Limited:
    def __init__(self, client: Client, budget: Budget):
        self.model: str = client.model
        self.parameters: Mapping[str, Any] = client.parameters
        self._client, self._budget = client, budget

    def complete(self, messages: Sequence[Message]) -> Answer:
        prices = self._budget.prices
        longest = int(self.parameters.get("max_tokens", 0))
        bound = prices.cost(_prompt_bytes(messages), longest)
        self._budget.reserve(bound)
        cost = 0.0
        try:
            answer = self._client.complete(messages)
            cost = prices.cost(answer.prompt_tokens, answer.completion_tokens)
        finally:
            self._budget.settle(bound, cost)
        return answer


def _prompt_bytes(messages: Sequence[Message]) -> int:
    return SCHEMA_BYTES + sum(len(message["content"].encode()) + 16 for message in messages)
