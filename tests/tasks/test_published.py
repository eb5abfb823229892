"""Published data sets: annotated files where they are there, hand-made rows of the originals."""

import json
import random
from pathlib import Path

import datasets
import pytest

from cat_jax.data.alignment import align_records
from cat_jax.data.coverage import annotation_coverage
from cat_jax.data.duplicates import find_duplicates
from cat_jax.data.records import Record
from cat_jax.errors import InputError
from cat_jax.evaluation.suite import evaluate
from cat_jax.tasks import arc, asdiv, cladder, gsm8k, mawps, score_rules, svamp
from cat_jax.tasks.published import set_aside
from cat_jax.testing import toy_model


@pytest.fixture
def published(shared):
    return shared / "data/cat_reference"


@pytest.fixture
def originals(tmp_path):
    """Save rows as a data set that ``datasets`` reads, whatever the split."""

    def save(**splits):
        folder = tmp_path / "originals"
        sets = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
        datasets.DatasetDict(sets).save_to_disk(str(folder))
        return str(folder)

    return save


@pytest.mark.parametrize(
    ("task", "folder", "sizes"),
    [(mawps, "MAWPS", (1239, 413, 413, 1000)), (svamp, "SVAMP", (600, 200, 200, 2065))],
)
def test_published_splits_and_the_other_data_set_as_ood(published, task, folder, sizes):
    other = "SVAMP/svamp_ood.jsonl" if task is mawps else "MAWPS/mawps_ood.jsonl"
    found = task(folder=str(published / folder), ood=str(published / other))
    splits = {split: found.records(split) for split in found.splits}
    assert list(splits) == ["train", "validation", "iid", "ood"]
    assert tuple(map(len, splits.values())) == sizes
    for records in splits.values():
        for record in records:
            assert record.input.endswith(" Answer: ")
            assert not record.target.startswith("Answer")
            assert found.parse_answer(record.target) != ""
            assert found.is_right(found.parse_answer(f"#### {record.target}"), record.target)
    assert sum(not record.important for record in splits["train"]) <= 0.05 * sizes[0]


def test_every_form_of_a_published_row_asks_alike(published):
    """Training files have "Answer: " in the target, those for other data sets in the prompt."""
    task = mawps(folder=str(published / "MAWPS"), ood=str(published / "MAWPS/mawps_ood.jsonl"))
    everywhere = {(r.input, r.target, r.important) for r in task.records("ood")}
    for record in task.records("train"):
        assert (record.input, record.target, record.important) in everywhere


def test_the_ood_files_hold_their_own_training_rows(published):
    for task, name, counts in ((mawps, "MAWPS", (1281, 2065)), (svamp, "SVAMP", (600, 1000))):
        file = published / name / f"{name.lower()}_ood.jsonl"
        found = task(folder=str(published / name), ood=str(file))
        duplicates = find_duplicates(found.records("train"), {"ood": found.records("ood")})["ood"]
        assert (duplicates.count, duplicates.records) == counts


def test_overlaps_within_and_across_data_sets(published):
    task = mawps(folder=str(published / "MAWPS"), ood=str(published / "SVAMP/svamp_ood.jsonl"))
    training = task.records("train")
    for split, count in (("validation", 19), ("iid", 23), ("ood", 0)):
        found = find_duplicates(training, {split: task.records(split)})[split]
        assert found.count == count, str(found)


def test_an_effect_without_causes_is_left_out(published):
    task = mawps(folder=str(published / "MAWPS"), annotator="gpt4o")
    lines = (published / "MAWPS/mawps_train_gpt4o.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    empty = [sum(not any(note.values()) for note in row["important"]) for row in rows]
    assert sum(empty) == 1
    for row, missing, record in zip(rows, empty, task.records("train"), strict=True):
        assert len(record.important) == sum(map(len, row["important"])) - missing


def test_validation_of_gsm8k_is_the_published_one(published):
    lines = (published / "GSM8k/gsm8k_val_first400.jsonl").read_text().splitlines()
    drawn = [json.loads(line)["idx"] for line in lines if line.strip()]
    kept, aside = set_aside(range(7_473), gsm8k.validation)
    assert aside[:400] == drawn
    assert (len(kept), len(aside)) == (7_473 - 1_319, 1_319)
    assert not set(kept) & set(aside)


def test_splits_of_svamp_are_the_published_ones(published):
    idx = {}
    for split in ("train", "val", "test"):
        lines = (published / f"SVAMP/svamp_{split}.jsonl").read_text().splitlines()
        idx[split] = [json.loads(line)["idx"] for line in lines if line.strip()]
    shuffled = list(range(1_000))
    random.Random(42).shuffle(shuffled)
    assert shuffled[:200] == idx["test"]
    assert set_aside(shuffled[200:], svamp.validation) == (idx["train"], idx["val"])


# Shares as published with the data, which say nothing of ties: to half a point.
SHARES = [
    (mawps, "MAWPS/mawps_train.jsonl", 0.840),
    (mawps, "MAWPS/mawps_train_gpt4o.jsonl", 0.933),
    (svamp, "SVAMP/svamp_train.jsonl", 0.906),
    (asdiv, "ASDiv/sample.jsonl", 0.927),
    (arc, "ARC_E/sample.jsonl", 0.866),
    (gsm8k, "GSM8k/gsm8k_val_first400.jsonl", 0.793),
]


@pytest.mark.parametrize(("task", "file", "share"), SHARES, ids=[x[1] for x in SHARES])
def test_coverage_of_published_annotations(published, task, file, share):
    records = task(ood=str(published / file)).records("ood")
    assert annotation_coverage(records).share == pytest.approx(share, abs=5e-3)


def test_coverage_counts_order_and_letters():
    record = {"input": "a 3 b 3 ", "target": "x", "important": [{"x": ["3", "B"]}, {"a": ["b"]}]}
    (found,) = (asdiv().published_record(record, "here"),)
    coverage = annotation_coverage([found])
    assert (coverage.edges, coverage.in_order) == (3, 1)
    assert annotation_coverage([]).share != annotation_coverage([]).share


def test_offsets_find_more_of_the_published_words_than_exact_tokens(published, shared):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers/qwen2.5")
    records = arc(ood=str(published / "ARC_E/sample.jsonl")).records("ood")
    found = {
        match: align_records(records, tokenizer, max_length=1_000, match=match)[1]
        for match in ("offsets", "reference")
    }
    assert len(found["offsets"].unmatched) < len(found["reference"].unmatched)


ROWS = {
    mawps: (
        {"question": "2 and 3? ", "result": "5", "expression": "2+3"},
        "2 and 3? Answer: ",
        "5",
    ),
    svamp: (
        {"Body": "Jo has 2.5", "Question": "How many?", "Answer": 2.5, "Equation": "2.5"},
        "Jo has 2.5. How many?. Answer: ",
        "2.5",
    ),
    gsm8k: (
        {"question": "1 and 1?", "answer": "1+1=<<1+1=2>>2\n#### 2"},
        "1 and 1? Answer: ",
        "1+1=<<1+1=2>>2\n#### 2",
    ),
    asdiv: (
        {"body": "Jo has 2.", "question": "How many?", "answer": "2 (balls)", "formula": "2=2"},
        "Jo has 2. How many? Answer: ",
        "2 (balls)",
    ),
    arc: (
        {
            "id": "x",
            "question": "Which is cold?",
            "choices": {"text": ["fire", "ice"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        "Which is cold?\nA. fire\nB. ice\nAnswer: ",
        "B",
    ),
}


@pytest.mark.parametrize("task", ROWS, ids=lambda task: task.name)
def test_rows_of_the_originals(task, originals):
    """Hand-made rows of the schemas that the hub documents; they were not read from it."""
    row, prompt, target = ROWS[task]
    wide = {"validation": [row] * 8} if task is asdiv else {"train": [row] * 8, "test": [row]}
    if task is gsm8k:
        wide["train"] = [row] * 1_320
    found = task(source=originals(**wide))
    sizes = {split: len(found.records(split)) for split in found.splits}
    expected = {"train": 1, "validation": 1_319} if task is gsm8k else {"train": 6, "validation": 2}
    assert sizes == expected | ({} if task is asdiv else {"iid": 1})
    record = found.records("train")[0]
    assert (record.input, record.target, record.important) == (prompt, target, ())
    (rule,) = (rule for name, rule in found.reference_rules().items() if name == "majority")
    assert found.is_right(found.parse_reply(rule(record), record), record.target)


@pytest.mark.parametrize("task", ROWS, ids=lambda task: task.name)
def test_rows_of_another_data_set_are_refused(task, originals):
    rows = [{"text": "a"}] * 2_000
    folder = originals(train=rows, test=rows, validation=rows)
    message = r"field '\w+': missing; there are text, so this is another data set"
    with pytest.raises(InputError, match=message):
        task(source=folder).records("train")


def test_missing_files_and_rows_are_named(tmp_path, originals):
    with pytest.raises(InputError, match=r"mawps_train\.jsonl"):
        mawps(folder=str(tmp_path)).records("train")
    row, *_ = ROWS[gsm8k]
    with pytest.raises(InputError, match="1319 of 5 rows cannot be set aside"):
        gsm8k(source=originals(train=[row] * 5, test=[row])).records("train")
    bad = {**ROWS[arc][0], "answerKey": "E"}
    with pytest.raises(InputError, match="field 'answerKey': 'E' is none of A, B"):
        arc().original_record(bad, "row 1")


def test_numbers_are_compared_as_numbers_and_words_as_words():
    task = asdiv()
    assert task.is_right(task.parse_answer("It is 15."), "15 (balls)")
    assert task.is_right(task.parse_answer("monday"), "Monday")
    assert task.is_right(task.parse_answer("2:3"), "2:3")
    assert not task.is_right(task.parse_answer("1:3"), "2:3")
    assert not task.is_right(task.parse_answer("16"), "15 (balls)")


def test_rules_compute_with_the_numbers_of_the_text(tmp_path):
    rows = [
        {"input": "Jo has 12 and 3.5. Answer: ", "target": target}
        for target in ("15.5", "8.5", "42", "3.5", "15.5")
    ]
    (tmp_path / "ood.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mawps_train.jsonl").write_text("\n".join(map(json.dumps, rows[:1])))
    task = mawps(folder=str(tmp_path), ood=str(tmp_path / "ood.jsonl"))
    scores = score_rules(task, {"ood": task.records("ood")})
    assert {name: found["ood"] for name, found in scores.items()} == {
        "majority": 0.4,
        "sum": 0.4,
        "difference": 0.2,
        "product": 0.2,
        "last number": 0.2,
    }


def test_a_reply_chooses_among_the_choices_of_its_prompt():
    record = Record(*ROWS[arc][1:])
    task = arc()
    for reply in ("B", "ice", "Answer: B. ice", "2"):
        assert task.is_right(task.parse_reply(reply, record), record.target)
    assert not task.is_right(task.parse_reply("fire", record), record.target)
    rules = {"longest choice": "A"}
    from cat_jax.tasks.arc import longest_choice

    assert longest_choice(record) == rules["longest choice"]


def test_evaluation_reads_replies_with_their_prompts(tmp_path, monkeypatch):
    line = json.dumps({"input": ROWS[arc][1], "target": "B"})
    (tmp_path / "ood.jsonl").write_text(line)
    task = arc(ood=str(tmp_path / "ood.jsonl"))
    monkeypatch.setattr("cat_jax.evaluation.suite.answer_texts", lambda ids, tokenizer: ["ice"])
    found = evaluate(toy_model(), task, splits=["ood"])
    assert found["ood"].answers == ["B"]
    assert found["ood"].exact_match == 1.0


@pytest.fixture
def questions(shared):
    return cladder(file=str(shared / "data/cladder/cladder_test-generate-easy.json"))


def test_cladder(questions):
    splits = {split: questions.records(split) for split in questions.splits}
    assert sum(map(len, splits.values())) == 844
    prompts = [record.input for records in splits.values() for record in records]
    assert len(set(prompts)) == 768  # the file repeats questions
    assert {record.target for records in splits.values() for record in records} == {"yes", "no"}
    assert len(splits["iid"]) == pytest.approx(2 * len(splits["validation"]), abs=2)
    assert len(splits["train"]) > 400
    assert questions.records("iid", seed=3) == splits["iid"]
    rows = json.loads(Path(questions.file).read_text())
    story = {
        f"{r['given_info'].strip()} {r['question'].strip()} Answer: ": r["meta"]["story_id"]
        for r in rows
    }
    told = {story[record.input] for record in splits["train"]}
    new = {story[record.input] for record in splits["ood"]}
    assert not told & new
    assert len(new) == 7
    assert 0.4 < score_rules(questions)["majority"]["iid"] < 0.65
    assert questions.is_right(questions.parse_answer("Yes, it will."), "yes")


def test_cladder_needs_its_file(tmp_path):
    with pytest.raises(InputError, match=r"data\.file is empty; name CLadder's JSON file"):
        cladder().records("train")
    (tmp_path / "a.json").write_text('[{"question": "?"}]')
    with pytest.raises(InputError, match="field 'meta': missing"):
        cladder(file=str(tmp_path / "a.json")).records("train")
