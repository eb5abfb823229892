"""Batch files: requests out, answers in, in any order and with faults."""

import json
import random
from functools import partial
from pathlib import Path

import pytest

import cat_jax as cat
from cat_jax.annotation import OpenAIClient, open_questions, read_batch, read_prior, write_batch
from cat_jax.annotation.questions import annotate_answered
from cat_jax.data.records import Record
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PRIOR = read_prior("risk")
RECORDS = [Record(f"Age: {n + 20}, Shoes: 4{n}. Risk: ", "High") for n in range(6)]
CLIENT = OpenAIClient("m")


def said(request):
    """What a right assistant says; of the record with 23 nothing of use at first."""
    messages = request["body"]["messages"]
    asked = [x["content"] for x in messages if x["role"] == "user"]
    record = json.loads([text for text in asked if text.startswith("{")][-1])
    age = record["input"].split()[1].rstrip(",")
    if age == "23" and not asked[-1].startswith("This cannot"):
        return "no"
    cause, effect = {"text": age, "kind": "value"}, {"text": "High", "kind": "answer"}
    return json.dumps({"annotations": [{"effect": effect, "causes": [cause]}]})


def result(request):
    choice = {"index": 0, "message": {"role": "assistant", "content": said(request)}}
    body = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    return {
        "id": "b",
        "custom_id": request["custom_id"],
        "response": {"status_code": 200, "body": body},
        "error": None,
    }


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions(cache, records=RECORDS):
    return open_questions(records, PRIOR, CLIENT, cache=cache)


def test_rounds_of_a_batch_give_what_asking_gives(tmp_path):
    cache, rounds = cat.AnswerCache(tmp_path / "cache"), []
    while write_batch(tmp_path / "in.jsonl", questions(cache)):
        requests = lines(tmp_path / "in.jsonl")
        rounds.append(len(requests))
        results = [result(request) for request in requests]
        random.Random(0).shuffle(results)
        (tmp_path / "out.jsonl").write_text("".join(json.dumps(x) + "\n" for x in results))
        found = read_batch(tmp_path / "out.jsonl", questions(cache), cache)
        assert (found.answered, found.missing) == (len(requests), 0)
    assert rounds == [6, 1]  # what did not pass is asked again
    outcomes = list(annotate_answered(RECORDS, PRIOR, CLIENT, cache))

    class Server:
        model, parameters = CLIENT.model, CLIENT.parameters

        def complete(self, messages):
            return cat.annotation.Answer(said({"body": {"messages": messages}}), 5, 2)

    asked = cat.annotate(RECORDS, PRIOR, Server()).outcomes
    assert [x.record for x in outcomes if x] == [x.record for x in asked]
    assert [x.attempts for x in outcomes if x] == [1, 1, 1, 2, 1, 1]


def test_a_request_is_what_batch_servers_read(tmp_path):
    write_batch(tmp_path / "in.jsonl", questions(None))
    request, *_ = lines(tmp_path / "in.jsonl")
    assert set(request) == {"custom_id", "method", "url", "body"}
    assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
    assert len(request["custom_id"]) == 64  # the longest that all hosted services take
    assert request["body"]["model"] == "m"
    assert request["body"]["max_tokens"] == 1024
    assert request["body"]["response_format"]["type"] == "json_schema"
    assert len({x["custom_id"] for x in lines(tmp_path / "in.jsonl")}) == 6
    # Equal records are one question.
    assert write_batch(tmp_path / "in.jsonl", questions(None, RECORDS * 2)) == 6


def test_missing_repeated_failed_and_foreign_lines_are_told(tmp_path):
    cache = cat.AnswerCache()
    write_batch(tmp_path / "in.jsonl", questions(cache))
    given = [result(request) for request in lines(tmp_path / "in.jsonl")][:5]
    given[1] |= {"error": {"code": "rate_limit", "message": "Age: 21"}, "response": None}
    given[2]["response"] = {"status_code": 500, "body": {}}
    foreign = given[3] | {"custom_id": "f" * 64}
    texts = [json.dumps(x) for x in (*given, given[0], foreign)]
    texts.insert(3, "{broken")
    (tmp_path / "out.jsonl").write_text("\n".join(texts) + "\n")
    found = read_batch(tmp_path / "out.jsonl", questions(cache), cache)
    assert (found.answered, found.missing) == (3, 3)
    assert found.failed == [
        (2, "the request failed (rate_limit)"),
        (3, "the request failed (status 500)"),
        (4, "is no result of a batch"),
    ]
    assert (found.repeated, found.unknown) == ([7], [8])
    text = str(found)
    assert "3 answers are taken, 3 are missing" in text
    assert "Age" not in text
    outcomes = list(annotate_answered(RECORDS, PRIOR, CLIENT, cache))
    # The record with 23 has a reply that did not pass, and is open too.
    assert [x is None for x in outcomes] == [False, True, True, True, False, True]


@pytest.mark.parametrize("content", ["", "[]\n", "no\n", None])
def test_files_that_are_no_results(tmp_path, content):
    path = tmp_path / "out.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"out\.jsonl (has no results|cannot be read)"):
        read_batch(path, questions(None), cat.AnswerCache())


@pytest.fixture
def command(run_command):
    return partial(run_command, "annotate")


def test_the_command_without_a_server(tmp_path, monkeypatch, command):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    source, out, batch = (tmp_path / name for name in ("raw.jsonl", "out.jsonl", "batch.jsonl"))
    write_records(source, RECORDS)
    given = source, "--prior", "risk", "--out", out, "--model", "m"
    status, text, _ = command(
        *given, "--dry-run", "--price-in", 2, "--price-out", 8, "--requests-per-minute", 3
    )
    assert status == 0
    assert "6 requests" in text
    assert "cost: about" in text
    assert "time at the rate limit: 2 min" in text
    assert [x.name for x in tmp_path.iterdir()] == ["raw.jsonl"]
    for left, annotated in ((1, 5), (0, 6)):
        assert command(*given, "--batch-requests", batch)[0] == 0
        results = tmp_path / "results.jsonl"
        results.write_text("".join(json.dumps(result(x)) + "\n" for x in lines(batch)))
        status, text, error = command(*given, "--batch-results", results)
        assert status == 0, error
        assert (f"{left} records are open" in text) == bool(left)
        assert f"{annotated} records are annotated" in text
        assert text.splitlines()[-1] == "0 are rejected"
    assert len(cat.read_records(out)) == 6
    own = tmp_path / "own.jsonl"
    own.write_text("mine\n")
    given = source, "--prior", "risk", "--out", own, "--model", "m"
    status, _, error = command(*given, "--batch-results", results)
    assert status == 2
    assert "is not from here" in error
    assert own.read_text() == "mine\n"
    assert not Path(f"{own}.cache").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-cost", "1"], "--max-cost needs the prices"),
        (["--price-in", "1"], "give both"),
        (["--dry-run", "--batch-requests", "a"], "exclude each other"),
        (["--runner", "DirectRunner", "--requests-per-minute", "5"], "leave out --runner"),
        (["--workers", "2"], "--runner DirectRunner"),
    ],
)
def test_options_that_do_not_go_together(words, says, command):
    status, _, error = command("x.jsonl", "--prior", "risk", "--out", "o", "--model", "m", *words)
    assert status == 2
    assert says in " ".join(error.split())
