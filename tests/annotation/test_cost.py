"""What annotation would ask and cost, the limit that it keeps, and the pace of requests."""

import json
import sys
import time
from pathlib import Path
from threading import Lock
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scripted_server import serve

import cat_jax as cat
from cat_jax.annotation import Answer, Budget, OverBudget, Prices, plan, read_prior
from cat_jax.annotation.pace import Pace, seconds
from cat_jax.annotation.prompt import first_messages
from cat_jax.data.records import Record
from cat_jax.errors import InputError

PRIOR = read_prior("risk")
RECORDS = [Record(f"Age: {n + 20}, Shoes: 4{n}. Risk: ", "High") for n in range(8)]


def right(record):
    cause = {"text": record["input"].split()[1].rstrip(","), "kind": "value"}
    effect = {"text": "High", "kind": "answer"}
    return json.dumps({"annotations": [{"effect": effect, "causes": [cause]}]})


class Assistant:
    """Reads a token for each byte and writes as many as may be: the dearest there can be."""

    model = "m"
    parameters: ClassVar = {"temperature": 0.7, "max_tokens": 100}

    def __init__(self, seconds=0.0):
        self.asked, self.seconds, self.lock = 0, seconds, Lock()

    def complete(self, messages):
        with self.lock:
            self.asked += 1
        time.sleep(self.seconds)
        read = sum(len(x["content"].encode()) for x in messages)
        return Answer(right(json.loads(messages[-1]["content"])), read, 100)


def test_a_plan_counts_what_is_open():
    cache, client = cat.AnswerCache(), Assistant()
    prices = Prices(input=2.0, output=10.0)
    whole = plan(RECORDS, PRIOR, client, cache=cache, samples=3, prices=prices)
    assert client.asked == 0
    assert (whole.records, whole.opinions, whole.requests) == (8, 24, 24)
    text = sum(len(x["content"]) for x in first_messages(PRIOR, RECORDS[0]))
    assert text * 24 / 4 < whole.prompt_tokens < text * 24 / 4 * 3  # the schema comes to it
    tokens = whole.prompt_tokens, whole.completion_tokens
    assert whole.cost == pytest.approx((2 * tokens[0] + 10 * tokens[1]) / 1e6)
    assert whole.most_tokens[1] == 2 * 24 * 100
    cat.annotate(RECORDS[:5], PRIOR, client, cache=cache, samples=3)
    rest = plan(
        RECORDS + RECORDS[-1:], PRIOR, client, cache=cache, samples=3, requests_per_minute=4
    )
    assert (rest.records, rest.opinions, rest.requests, rest.cost) == (9, 27, 9, None)
    assert "time at the rate limit: 3 min" in str(rest)
    assert "cost" not in str(rest)


def test_a_plan_asks_again_where_a_reply_did_not_pass():
    cache = cat.AnswerCache()

    class Dies(Assistant):
        def complete(self, messages):
            if self.asked:
                raise RuntimeError
            self.asked += 1
            return Answer("no")

    with pytest.raises(RuntimeError):
        cat.annotate(RECORDS[:1], PRIOR, Dies(), cache=cache)
    (question,) = cat.annotation.open_questions(RECORDS[:1], PRIOR, Dies(), cache=cache)
    assert question.messages[-2]["content"] == "no"


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize("affordable", [0, 3, 8])
def test_a_budget_is_kept_even_where_all_is_as_dear_as_may_be(concurrency, affordable):
    prices, client, cache = Prices(1.0, 3.0), Assistant(0.01), cat.AnswerCache()
    free = Budget(prices)
    cat.annotate(RECORDS, PRIOR, free.limit(Assistant()), cache=cat.AnswerCache())
    each = free.spent / 8
    schema = 2 * each  # what is reserved above what is paid
    budget = Budget(prices, affordable * each + (schema if affordable else 0))
    limited = budget.limit(client)
    if affordable < 8:
        with pytest.raises(OverBudget, match="more than is left"):
            cat.annotate(RECORDS, PRIOR, limited, cache=cache, concurrency=concurrency)
    else:
        cat.annotate(RECORDS, PRIOR, limited, cache=cache, concurrency=concurrency)
    assert budget.spent <= budget.most
    assert affordable <= client.asked <= affordable + 2
    # What was answered is not paid again.
    before = client.asked
    done = cat.annotate(RECORDS, PRIOR, Budget(prices).limit(client), cache=cache)
    assert len(done.records) == 8
    assert client.asked == 8 >= before


def test_an_answer_that_fails_costs_nothing():
    class Fails(Assistant):
        def complete(self, messages):
            raise RuntimeError

    budget = Budget(Prices(1, 1), 1.0)
    with pytest.raises(RuntimeError):
        cat.annotate(RECORDS[:1], PRIOR, budget.limit(Fails()))
    assert budget.spent == 0
    budget.reserve(1.0)  # nothing is held back


def test_prices_are_checked():
    with pytest.raises(InputError, match="input"):
        Prices(-1, 0)
    assert Prices(2, 10).cost(1_000_000, 500_000) == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("2.5", 2.5), ("soon", 0)],
)
def test_times_of_servers(text, value):
    assert seconds(text) == pytest.approx(value)


def test_requests_are_spaced():
    pace, start = Pace(1200), time.monotonic()
    for _ in range(5):
        pace.wait()
    assert 0.2 <= time.monotonic() - start < 2


def test_a_server_that_says_that_nothing_is_left_is_left_alone():
    pace, start = Pace(), time.monotonic()
    pace.follow({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "9s"})
    pace.wait()
    assert time.monotonic() - start < 0.1
    pace.follow({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"})
    pace.wait()
    assert time.monotonic() - start >= 0.25


def test_headers_of_a_real_reply_are_followed():
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    times = []

    def answer(body):
        times.append(time.monotonic())
        return 200, headers, right(json.loads(body["messages"][-1]["content"]))

    with serve(answer) as (address, _):
        client = cat.OpenAIClient("m", base_url=address)
        cat.annotate(RECORDS[:2], PRIOR, client, concurrency=1)
    assert times[1] - times[0] >= 0.29
