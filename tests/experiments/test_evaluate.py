"""``experiments.evaluate``: answers and a report from saved models."""

import json

import pytest

from cat_jax import tasks
from cat_jax.data.sources import training_record_fields, write_records
from cat_jax.errors import InputError
from cat_jax.evaluation import evaluate, force_choice, python_texts, text_loss
from cat_jax.models import load_language_model, save_pretrained
from cat_jax.testing import toy_model
from experiments.evaluate import main, named_models, parse

SIZES = ["--stg.train-records", "60", "--stg.test-records", "9", "--stg.no-trace"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        run = toy_model(seed=seed, max_positions=300)
        save_pretrained(folder / f"model-{seed}", run.model.config, run.params, run.tokenizer)
    return folder


def test_two_models_on_a_task(models, tmp_path, capsys):
    first, second = models / "model-0", models / "model-1"
    out = tmp_path / "out"
    main([str(first), f"two={second}", "--tasks", "stg", *SIZES, "--out", str(out)])
    printed = capsys.readouterr().out
    assert "report.md" in printed
    task = tasks.stg(train_records=60, test_records=9)
    expected = evaluate(load_language_model(str(second)), task)
    lines = [json.loads(x) for x in (out / "answers/stg/two.jsonl").read_text().splitlines()]
    assert len(lines) == 27
    assert [x["reply"] for x in lines[9:18]] == expected["ood"].replies
    assert [x["record"] for x in lines[9:18]] == list(
        map(training_record_fields, task.records("ood"))
    )
    assert [x.get("intervention") for x in lines] == [*[None] * 18, *["spurious"] * 9]
    assert lines[0]["log_probability"] == pytest.approx(expected["iid"].log_probs[0], rel=1e-4)
    report = json.loads((out / "report.json").read_text())["tasks"]["stg"]
    assert list(report["methods"]) == ["model-0", "two"]
    assert report["methods"]["two"]["against"]["model-0"].keys() == {"iid", "ood"}
    assert report["reference_rules"]["oracle"]["ood"] == 1.0
    page = (out / "report.md").read_text()
    assert "| two |" in page
    assert "rule: oracle" in page
    assert (out / "figures/stg.png").read_bytes()[:4] == b"\x89PNG"


def test_models_of_one_name_are_seeds(models, tmp_path):
    named = [f"mine={models / 'model-0'}", f"mine={models / 'model-1'}"]
    main([*named, "--tasks=stg", *SIZES, "--forced-choice", "--text-loss", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text())
    model = load_language_model(str(models / "model-1"))
    assert report["texts"]["methods"]["mine"][1]["loss"] == pytest.approx(
        text_loss(model, python_texts()).loss, rel=1e-5
    )
    assert "Loss on plain texts" in (tmp_path / "report.md").read_text()
    records = tasks.stg(train_records=60, test_records=9).records("ood")
    choices = ("High Risk", "Low Risk")
    forced = force_choice(model, records, choices).answers
    right = [a == r.target for a, r in zip(forced, records, strict=True)]
    lines = (tmp_path / "answers/stg/mine-1.jsonl").read_text().splitlines()[9:18]
    assert [json.loads(line)["forced_choice"] for line in lines] == right
    assert report["tasks"]["stg"]["methods"]["mine"]["seeds"] == 2
    assert sorted(x.name for x in (tmp_path / "answers/stg").iterdir()) == [
        "mine-0.jsonl",
        "mine-1.jsonl",
    ]


def test_own_files_are_a_task(models, tmp_path):
    records = tasks.stg(train_records=60, test_records=5).records("ood")
    write_records(tmp_path / "mine.jsonl", records)
    mine = ["--tasks", "files", "--files.test-files", str(tmp_path / "mine.jsonl")]
    main([str(models / "model-0"), *mine, "--out", str(tmp_path / "out")])
    lines = (tmp_path / "out/answers/files/model-0.jsonl").read_text().splitlines()
    assert [json.loads(x)["record"] for x in lines] == list(map(training_record_fields, records))
    with pytest.raises(InputError, match=r"has no test set; give .* --data\.test-files"):
        main([str(models / "model-0"), "--tasks", "files", "--out", str(tmp_path / "none")])


def test_nothing_is_answered_before_all_tasks_can_be_asked(models, tmp_path):
    arguments = [str(models / "model-0"), "--tasks", "stg,stg_h", *SIZES, "--out", str(tmp_path)]
    with pytest.raises(InputError, match="are longer than 300 tokens"):
        main([*arguments, "--stg_h.test-records", "3"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["m"], "--tasks names no task; give some of stg,"),
        (["m", "--tasks", "stgg"], "no task is named 'stgg'; did you mean stg"),
        (["m", "--tasks", "stg", "--stg.test-records", "0"], "test_records must be at least 1"),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(InputError, match=says):
        parse(arguments)


def test_names_of_models():
    assert named_models(["a/b/", "x=c", "x=d"]) == {"b": ["a/b/"], "x": ["c", "d"]}
    with pytest.raises(InputError, match="two models are named 'b'; write NAME=c/b"):
        named_models(["a/b", "c/b"])
    with pytest.raises(InputError, match="name at least one model"):
        named_models([])
