"""What the review page holds, and Label Studio's files there and back."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cat_jax as cat
from cat_jax.annotation import Answer, outcome_fields, read_prior
from cat_jax.annotation.review import (
    ReviewItem,
    read_label_studio,
    read_review_items,
    review_page,
    write_label_studio,
)
from cat_jax.annotation.review.label_studio import label_studio_config
from cat_jax.data.matching import borders, find_span
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PRIOR = read_prior("math")


def record(prompt, *causes, target="5"):
    spans = tuple(Span(x, prompt.index(x)) for x in causes)
    notes = (Annotation(Span(target, len(prompt)), spans),) if causes else ()
    return Record(prompt, target, notes)


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_policy_names_the_one_script_and_style():
    page = review_page([record("</script><b> 3 and 2: ", "3", "2")], PRIOR)
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert page.count("<script") == 2
    assert "</script><b>" not in page
    (item,) = data_of(page)["items"]
    assert item["input"] == "</script><b> 3 and 2: "
    assert [edge[2:] for edge in item["edges"]] == [[13, 14], [19, 20]]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_comes_back_from_the_page(text):
    (item,) = data_of(review_page([Record(text, "5")], PRIOR))["items"]
    assert item["input"] == text
    assert len(item["borders"]) == len(text) + 2


@given(st.text("ab1.-é\u0301 小🍎👩\u200d", min_size=1, max_size=12), st.data())
def test_borders_are_where_words_are_found(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    stop = data.draw(st.integers(start + 1, len(text)))
    words = text[start:stop]
    found = words == words.strip() and range(start, stop) in find_span(text, Span(words))
    is_border = borders(text)
    if found:
        assert is_border[start]
        assert is_border[stop]
    elif words == words.strip() and not words.startswith("-"):
        assert not (is_border[start] and is_border[stop])


class Says:
    model = "m"

    def __init__(self, *answers):
        self.answers, self.parameters = list(answers), {}

    def complete(self, messages):
        return Answer(self.answers.pop(0))


def said(*causes, effect="5"):
    spans = [{"text": cause, "kind": "quantity"} for cause in causes]
    note = {"effect": {"text": effect, "kind": "answer"}, "causes": spans}
    return json.dumps({"annotations": [note]})


PROMPT = "Tom has 3 and 41 and 2. Answer: "
AT = {word: (PROMPT.index(word), PROMPT.index(word) + len(word)) for word in ("3", "41", "2")}
FIVE = (len(PROMPT), len(PROMPT) + 1)


def outcome(*answers, **options):
    found = cat.annotate([record(PROMPT)], PRIOR, Says(*answers), concurrency=1, **options)
    return found.outcomes[0]


def test_outcomes_are_read_back_from_their_file(tmp_path):
    agreed = outcome(said("3", "2"), said("3", "41"), said("2"), samples=3)
    rejected = outcome(said("3", "77"), said("3", "2", "77"))
    out = tmp_path / "out.jsonl"
    out.write_text(json.dumps(outcome_fields(agreed, PRIOR) | {"id": 7}) + "\n\n")
    rejects = tmp_path / "out.jsonl.rejects.jsonl"
    rejects.write_text(json.dumps(outcome_fields(rejected, PRIOR)) + "\n")
    first, second = read_review_items(out)
    assert first.edges == {(FIVE, AT["3"]), (FIVE, AT["2"])}
    assert first.shares[FIVE, AT["41"]] == pytest.approx(1 / 3)
    assert first.agreement == pytest.approx((2 / 3 + 1 / 3 + 2 / 3) / 3)
    assert first.kinds[AT["3"]] == "quantity"
    assert first.fields["id"] == 7
    # Of a rejected reply that stands which can.
    assert second.edges == {(FIVE, AT["3"]), (FIVE, AT["2"])}
    assert "'77' does not stand in the text" in second.reasons[0]
    assert "77" in second.reply
    assert not {"reasons", "reply", "important"} & set(second.fields)


def test_words_without_offsets_stand_wherever_they_are_found():
    (item,) = data_of(
        review_page([Record("3, 2, 3: ", "3", (Annotation(Span("3"), (Span("3"),)),))], PRIOR)
    )["items"]
    assert item["edges"] == [[9, 10, 0, 1], [9, 10, 6, 7]]
    assert item["kinds"][-1] == [9, 10, "answer"]
    assert item["kinds"][0] == [0, 1, "quantity"]


def test_conversations_and_broken_lines_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, says in (("{}\n", "it has no 'input'"), ("{\n", "is no JSON")):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"a\.jsonl, line 1: .*{says}"):
            read_review_items(path)
    chat = cat.read_records(
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    )
    with pytest.raises(InputError, match="prompts and answers are reviewed"):
        review_page(chat, PRIOR)


TEXT = "Zoë 👩\u200d👩\u200d👧 has 3 🍎 and Ame\u0301lie 2 小明 🍎. Answer: "


@pytest.mark.parametrize("offsets", ["utf-16", "code points"])
def test_label_studio_there_and_back(tmp_path, offsets):
    path, given_ = tmp_path / "tasks.json", record(TEXT, "3", "2", "🍎")
    write_label_studio(path, [given_, record("3: ")], PRIOR, offsets=offsets)
    tasks = json.loads(path.read_text())
    labels = [x for x in tasks[0]["predictions"][0]["result"] if x["type"] == "labels"]
    (two,) = [x for x in labels if x["value"]["text"] == "2"]
    units = TEXT.encode("utf-16-le") if offsets == "utf-16" else TEXT
    width = 2 if offsets == "utf-16" else 1
    start = two["value"]["start"] * width
    cut = units[start : two["value"]["end"] * width]
    assert (cut.decode("utf-16-le") if offsets == "utf-16" else cut) == "2"
    for task in tasks:  # a person confirms what was predicted
        task["annotations"] = [{"was_cancelled": False, **task.pop("predictions")[0]}]
    tasks[1]["annotations"][0]["was_cancelled"] = True
    path.write_text(json.dumps(tasks))
    (back,) = read_label_studio(path, PRIOR)
    assert back.text == given_.text
    causes = {(x.text, x.start) for x in back.important[0].causes}
    assert causes == {(x.text, x.start) for x in given_.important[0].causes}
    assert '<Label value="quantity"' in (tmp_path / "tasks.json.xml").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: result[0]["value"].update(text="x"), "'x' does not stand at"),
        (lambda result: result[0]["value"].update(labels=["answer"]), "is no edge of the graph"),
        (lambda result: result[-1].update(to_id="gone"), "a relation has an end that is no label"),
        (lambda result: result[-1].update(direction="left"), "no edge of the graph"),
        (lambda result: result.__delitem__(slice(3, None)), "no effect is the answer"),
    ],
)
def test_label_studio_breaks_a_rule(tmp_path, change, says):
    path = tmp_path / "tasks.json"
    write_label_studio(path, [record(PROMPT, "3", "2")], PRIOR)
    (task,) = json.loads(path.read_text())
    result = task["predictions"][0]["result"]
    change(result)
    path.write_text(json.dumps([task | {"id": 12, "annotations": [{"result": result}]}]))
    with pytest.raises(InputError, match=r"tasks\.json, task 12: ") as error:
        read_label_studio(path, PRIOR)
    assert says in str(error.value)


def test_labels_are_escaped():
    assert label_studio_config(PRIOR).count("<Label ") == len(PRIOR.kinds)


def test_the_command(tmp_path, run_command):
    def command(*words):
        status, *said = run_command("review", *words)
        return status, "".join(said)

    out = tmp_path / "out.jsonl"
    cat.write_records(out, [record(PROMPT, "3", "2")])
    status, text = command(out, "--prior", "math", "--out", tmp_path / "r.html")
    assert (status, "1 records, 0 of them rejected" in text) == (0, True)
    assert data_of((tmp_path / "r.html").read_text())["items"][0]["target"] == "5"
    tasks = tmp_path / "tasks.json"
    assert command(out, "--prior", "math", "--out", tasks)[0] == 0
    (task,) = json.loads(tasks.read_text())
    tasks.write_text(json.dumps([task | {"annotations": task["predictions"]}]))
    back = tmp_path / "back.jsonl"
    status, text = command(tasks, "--prior", "math", "--out", back, "--from-label-studio")
    assert status == 0, text
    assert cat.read_records(back) == cat.read_records(out)
    status, text = command(out, "--prior", "math", "--out", tmp_path / "r.txt")
    assert (status, "--out must end in" in text) == (2, True)


def test_items_are_shown_without_an_annotation():
    page = review_page([ReviewItem(record(PROMPT))], PRIOR)
    assert data_of(page)["items"][0]["edges"] == []
