"""Files of generated tasks: published sizes and form, never over existing ones."""

import json

import pytest

from cat_jax import tasks
from cat_jax.data.sources import read_records
from experiments import generate_data
from experiments.command_line import exit_status


def write(*arguments):
    return exit_status(lambda: generate_data.main([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("size", "counts"),
    [("stg_l", (1600, 400, 400)), ("stg_m", (800, 400, 400)), ("stg_h", (3000, 1000, 1000))],
)
def test_published_sizes(tmp_path, capsys, size, counts):
    assert write(size, tmp_path / "stg") == 0
    paths = [tmp_path / "stg" / f"{split}.jsonl" for split in ("train", "iid", "ood")]
    about = tmp_path / "stg" / "task.json"
    assert capsys.readouterr().out.split() == list(map(str, (*paths, about)))
    assert tuple(len(read_records(path)) for path in paths) == counts


@pytest.mark.parametrize(
    ("size", "file"),
    [("stg_l", "STG/spurious_token_game_train3.jsonl"), ("stg_h", "STG_H/STG_H_train.jsonl")],
)
def test_records_have_the_published_form(tmp_path, shared, size, file):
    few = ("--data.train-records", 3, "--data.test-records", 2)
    assert write(size, tmp_path, *few, "--seed", 5) == 0
    published = (shared / "data/cat_reference" / file).read_text().splitlines()[0]
    ours = (tmp_path / "train.jsonl").read_text().splitlines()[0]

    def form(line):
        row = json.loads(line)
        ((effect, causes),) = (pair for note in row["important"] for pair in note.items())
        words = [cause if isinstance(cause, str) else cause["text"] for cause in causes]
        assert all(word in row["input"] for word in words)
        is_answer = effect.startswith("Answer: ")
        names = sorted(word.split(": ")[0] for word in words if ": " in word)
        return list(row), is_answer, len(words), names

    assert form(ours) == form(published)
    assert len(read_records(tmp_path / "train.jsonl")) == 3
    assert len(read_records(tmp_path / "ood.jsonl")) == 2


def test_a_drawn_model_carries_its_graph_and_scores(tmp_path, capsys):
    options = ("--data.causes", 2, "--data.shifts", "ood", "reversed", "--data.test-records", 50)
    assert write("scm", tmp_path, *options, "--data.train-records", 60) == 0
    assert len(capsys.readouterr().out.split()) == 5
    about = json.loads((tmp_path / "task.json").read_text())
    task = tasks.scm(causes=2, shifts=("ood", "reversed"), test_records=50, train_records=60)
    assert about["settings"]["causes"] == 2
    assert about["graph"]["nodes"] == dict(task.graph.nodes(data="role"))
    assert {tuple(edge) for edge in about["graph"]["edges"]} == set(task.graph.edges)
    assert about["reference_rules"] == tasks.score_rules(task)
    records = read_records(tmp_path / "reversed.jsonl")
    assert [record.text for record in records] == [r.text for r in task.records("reversed")]
    assert [record.important for record in records] == [
        r.important for r in task.records("reversed")
    ]


def test_existing_files_are_kept(tmp_path, capsys):
    (tmp_path / "ood.jsonl").write_text("mine")
    assert write("stg", tmp_path) == 2
    assert "ood.jsonl is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ood.jsonl"]
    assert (tmp_path / "ood.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stgg", "new"], "no task is named 'stgg'; did you mean stg"),
        (["stg", "new", "--data.train-records", "0"], "--data.train-records must be at least 1"),
        (["stg", "new", "--seed", "-1"], "--seed must be at least 0"),
        (["scm", "new", "--data.mediators", "5"], "--data.mediators are more than data.causes"),
        (
            ["scm", "new", "--data.causes", "1", "--data.noise", "1", "--data.mechanism", "lookup"],
            "cannot tell causal from spurious",
        ),
    ],
)
def test_nothing_is_written_of_what_cannot_be(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert write(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_help_names_the_tasks(capsys):
    with pytest.raises(SystemExit) as stop:
        generate_data.main(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in tasks.TASKS)
