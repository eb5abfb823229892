"""An assistant that is asked, checked, asked again, and never twice for the same."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for scripted_server.py

from scripted_server import serve

import cat_jax as cat
from cat_jax.annotation import AnswerCache, OpenAIClient, ServerFailed, read_prior
from cat_jax.data.records import Record
from cat_jax.data.sources import write_records
from cat_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PRIOR = read_prior("risk")
SECRET = "sk-never-to-be-seen"


def records(count=6):
    return [Record(f"Age: {n + 20}, Shoes: 4{n}. Risk: ", "High") for n in range(count)]


def right(record):
    age = record["input"].split()[1].rstrip(",")
    return reply(record["target"], age)


def reply(effect, *causes):
    return json.dumps(
        {
            "annotations": [
                {
                    "effect": {"text": effect, "kind": "answer"},
                    "causes": [{"text": cause, "kind": "value"} for cause in causes],
                }
            ]
        }
    )


def asked(body):
    """The record that a request is about."""
    users = [x["content"] for x in body["messages"] if x["role"] == "user"]
    return json.loads([text for text in users if text.startswith("{")][-1])


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def client(address, **options):
    return OpenAIClient("m", base_url=address, **{"timeout": 5.0, "retries": 2} | options)


def annotate(answer, given=None, **options):
    with serve(answer) as (address, script):
        found = cat.annotate(
            records() if given is None else given, PRIOR, client(address), **options
        )
    return found, script


def test_spans_become_offsets_and_order_is_kept():
    found, script = annotate(lambda body: right(asked(body)))
    assert [x.record.input for x in found.outcomes] == [x.input for x in records()]
    for record in found.records:
        (note,) = record.important
        assert note.effect.start == len(record.input)
        assert [(c.text, c.start) for c in note.causes] == [(record.input.split()[1][:-1], 5)]
    assert found.rejects == []
    assert {(x.attempts, x.prompt_tokens, x.completion_tokens) for x in found.outcomes} == {
        (1, 7, 3)
    }
    assert len(script.requests) == 6
    (system, user, assistant, last) = script.requests[0]["messages"]
    assert PRIOR.task in system["content"]
    assert "value -> answer" in system["content"]
    assert json.loads(user["content"])["target"] == PRIOR.examples[0][0].target
    assert json.loads(assistant["content"])["annotations"]
    assert json.loads(last["content"])["target"] == "High"
    assert script.requests[0]["response_format"]["type"] == "json_schema"
    assert set(script.keys) == {f"Bearer {SECRET}"}


def test_what_fails_is_asked_again_with_the_reason():
    def answer(body):
        record = asked(body)
        return right(record) if len(body["messages"]) > 4 else reply("High", "Age: 99")

    found, script = annotate(answer)
    assert len(found.records) == 6
    assert {x.attempts for x in found.outcomes} == {2}
    again = [x["messages"] for x in script.requests if len(x["messages"]) == 6]
    assert len(again) == 6
    assert "'Age: 99' does not stand in the text" in again[0][-1]["content"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I will not.", "the reply is no JSON"),
        ("", "the reply is no JSON"),
        ("{}", "annotations: field required"),
        ('{"annotations": []}', "annotations:"),
        (reply("Low", "20"), "'Low' does not stand in the answer"),
        (reply("High", "High"), "does not stand before its effect"),
    ],
)
def test_what_fails_twice_is_rejected_with_its_reason(said, reason):
    found, script = annotate(lambda body: said, records(1))
    (outcome,) = found.rejects
    assert reason in "; ".join(outcome.reasons)
    assert outcome.reply == said
    assert outcome.record == records(1)[0]
    assert len(script.requests) == 2


def test_broken_json_is_repaired():
    said = "Here it is:\n```json\n" + reply("High", "20")[:-2].replace('"', "'") + ",\n```"
    found, script = annotate(lambda body: said, records(1))
    assert len(found.records) == len(script.requests) == 1


def test_nothing_is_asked_twice(tmp_path):
    cache = AnswerCache(tmp_path)
    first, script = annotate(lambda body: right(asked(body)), records() * 3, cache=cache)
    assert len(script.requests) == 6  # of equal records one is asked for
    second, script = annotate(lambda body: 500, records() * 3, cache=AnswerCache(tmp_path))
    assert script.requests == []
    assert [x.record for x in second.outcomes] == [x.record for x in first.outcomes]
    assert all(x.cached for x in second.outcomes)
    # Torn files are asked for again.
    (file, *_) = sorted(tmp_path.rglob("*.json"))
    file.write_text('{"text"')
    _, script = annotate(lambda body: right(asked(body)), cache=AnswerCache(tmp_path))
    assert len(script.requests) == 1
    texts = "".join(x.read_text() for x in tmp_path.rglob("*.json"))
    assert SECRET not in texts


def test_rejects_are_asked_anew_only_when_told(tmp_path):
    said = ["no"]
    options = {"given": records(1), "cache": AnswerCache(tmp_path)}
    answer = lambda body: said[0]  # noqa: E731
    found, script = annotate(answer, **options)
    assert (len(found.rejects), len(script.requests)) == (1, 2)
    said[0] = reply("High", "20")
    found, script = annotate(answer, **options)
    assert (len(found.rejects), len(script.requests)) == (1, 0)
    found, script = annotate(answer, **options, retry_rejects=True)
    assert (len(found.records), len(script.requests)) == (1, 1)
    found, script = annotate(answer, **options)
    assert (len(found.records), len(script.requests)) == (1, 0)


def test_a_server_without_schemas_is_asked_in_words():
    def answer(body):
        return (400, {}) if "response_format" in body else right(asked(body))

    found, script = annotate(answer, concurrency=1)
    assert len(found.records) == 6
    assert len(script.requests) == 7


@pytest.mark.parametrize("fault", [(429, {"Retry-After": "0"}), (500, {}), (503, {}), "cut"])
def test_faults_that_pass_are_waited_for(fault):
    faults = [fault]
    found, script = annotate(
        lambda body: faults.pop() if faults else right(asked(body)), records(2), concurrency=1
    )
    assert len(found.records) == 2
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ((401, {}), "the server answered 401: the key is refused; check OPENAI_API_KEY"),
        ((404, {}), "the server answered 404"),
        ((400, {}), "the server answered 400"),
        ((429, {"Retry-After": "0"}), "the server answered 429: too many requests"),
        ((500, {}), "the server answered 500"),
        ("cut", "the server cannot be reached"),
    ],
)
def test_faults_that_stay_end_it_and_what_was_answered_is_kept(tmp_path, fault, says):
    def answer(body):
        return fault if len(script.requests) > 3 else right(asked(body))

    cache = AnswerCache(tmp_path)
    with (
        serve(lambda body: answer(body)) as (address, script),
        pytest.raises(ServerFailed) as error,
    ):
        cat.annotate(records(), PRIOR, client(address, retries=0), cache=cache, concurrency=1)
    said = str(error.value)
    assert said.startswith(says)
    assert SECRET not in said
    assert "Age" not in said  # nothing of the prompt
    assert len(list(tmp_path.rglob("*.json"))) == 3
    found, script = annotate(lambda body: right(asked(body)), cache=AnswerCache(tmp_path))
    assert (len(found.records), len(script.requests)) == (6, 3)


def test_a_server_that_is_too_slow():
    def slowly(body):
        time.sleep(1.0)
        return right(asked(body))

    with (
        serve(slowly) as (address, _),
        pytest.raises(ServerFailed, match="the server did not answer in time"),
    ):
        cat.annotate(records(1), PRIOR, client(address, timeout=0.2, retries=0))


def test_a_client_that_was_used_is_pickled_without_its_key():
    with serve(lambda body: right(asked(body))) as (address, _):
        used = client(address)
        cat.annotate(records(1), PRIOR, used)
        content = pickle.dumps(used)
        assert SECRET.encode() not in content
        again = pickle.loads(content)  # noqa: S301
        assert len(cat.annotate(records(2), PRIOR, again).records) == 2


def test_no_server_at_all():
    with pytest.raises(ServerFailed, match="the server cannot be reached"):
        cat.annotate(records(1), PRIOR, client("http://127.0.0.1:9/v1", retries=0))


def test_a_key_is_needed_for_openai_alone(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="set OPENAI_API_KEY, or name another server"):
        OpenAIClient("m").connect()
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        cat.annotate(records(1), PRIOR, OpenAIClient("m"))
    with serve(lambda body: right(asked(body))) as (address, _):
        assert len(cat.annotate(records(2), PRIOR, client(address)).records) == 2


def test_conversations_are_refused_by_place():
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(InputError, match="record 1: an assistant annotates prompts and answers"):
        cat.annotate(cat.read_records(rows), PRIOR, client("http://127.0.0.1:9/v1"))


# The command


@pytest.fixture
def source(tmp_path):
    write_records(tmp_path / "raw.jsonl", [*records(12), *records(2)])
    return tmp_path / "raw.jsonl"


def words(source, out, address, *more):
    given = ("--prior", "risk", "--out", out, "--model", "m", "--base-url", address)
    return [sys.executable, "-m", "experiments.annotate", *map(str, (source, *given, *more))]


@pytest.fixture
def run(run_command):
    return lambda *arguments: run_command("annotate", *words(*arguments)[3:])


def mixed(body):
    record = asked(body)
    return "no" if "Age: 23," in record["input"] else right(record)


@pytest.mark.slow
def test_the_command_writes_records_and_rejects(source, tmp_path, run, monkeypatch):
    out = tmp_path / "out.jsonl"
    with serve(mixed) as (address, script):
        status, said, _ = run(source, out, address)
        assert status == 0
        assert said.splitlines() == [
            f"13 records are annotated: {out}",
            f"1 are rejected: {out}.rejects.jsonl",
        ]
        assert len(script.requests) == 13  # 12 different ones, one of them twice
        read = cat.read_records(out)
        assert [record.input for record in read] == [
            record.input for record in (*records(12), *records(2)) if "23" not in record.input
        ]
        assert all(record.important for record in read)
        (reject,) = map(json.loads, Path(f"{out}.rejects.jsonl").read_text().splitlines())
        assert reject["reply"] == "no"
        assert "no JSON" in reject["reasons"][0]
        about = json.loads(out.read_text().splitlines()[0])["annotation"]
        kinds = [{"start": 5, "stop": 7, "kind": "value"}, {"start": 26, "stop": 30}]
        kinds[1]["kind"] = "answer"
        assert about == {"model": "m", "prior": PRIOR.sha256, "attempts": 1, "kinds": kinds}
        before = out.read_bytes()
        assert run(source, out, address)[0] == 0
        assert len(script.requests) == 13
        assert out.read_bytes() == before
        status, said, _ = run(source, tmp_path / "few.jsonl", address, "--limit", "2")
        assert said.startswith("2 records are annotated")
    monkeypatch.setitem(OpenAIClient.__init__.__kwdefaults__, "retries", 0)  # waits for each
    status, _, error = run(source, tmp_path / "down.jsonl", "http://127.0.0.1:9/v1")
    assert status == 1
    assert "the server cannot be reached" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing_and_pay_nothing_twice(source, tmp_path, run):
    """Of each kill at most the requests that were in flight are asked again."""

    def slowly(body):
        time.sleep(0.1)
        return mixed(body)

    rng = random.Random(0)
    with serve(slowly) as (address, script):
        assert run(source, tmp_path / "whole.jsonl", address, "--concurrency", "2")[0] == 0
        needed = len(script.requests)
        out, kills = tmp_path / "out.jsonl", 0
        for _ in range(20):
            asked_before = len(script.requests)
            process = subprocess.Popen(words(source, out, address, "--concurrency", "2"), cwd=ROOT)
            while process.poll() is None and len(script.requests) == asked_before:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        assert kills >= 3
        assert run(source, out, address, "--concurrency", "2")[0] == 0
        assert len(script.requests) - needed <= needed + 2 * kills
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    rejects = [Path(f"{x}.rejects.jsonl").read_bytes() for x in (out, tmp_path / "whole.jsonl")]
    assert rejects[0] == rejects[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("none.jsonl", "out.jsonl"), "none.jsonl"),
        (("raw.jsonl", "raw.jsonl"), "raw.jsonl is there already and is not from here"),
        (("raw.jsonl", "out.jsonl", "--prior", "maths"), "did you mean math"),
        (("raw.jsonl", "out.jsonl", "--concurrency", "0"), "concurrency"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(
    source, tmp_path, monkeypatch, run, arguments, says
):
    monkeypatch.chdir(tmp_path)
    before = os.listdir(tmp_path)
    raw, out, *more = arguments
    status, _, errors = run(raw, out, "http://127.0.0.1:9/v1", *more)
    assert status == 2
    assert says in " ".join(errors.replace("│", " ").split())
    assert os.listdir(tmp_path) == before
