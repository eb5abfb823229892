"""The files of the Spurious Token Game: published sizes and form, never over existing ones."""

import json

import pytest

from cat_jax.data.sources import read_records
from experiments import generate_stg
from experiments.command_line import exit_status


def write(*arguments):
    return exit_status(lambda: generate_stg.main([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("size", "counts"),
    [("stg_l", (1600, 400, 400)), ("stg_m", (800, 400, 400)), ("stg_h", (3000, 1000, 1000))],
)
def test_published_sizes(tmp_path, capsys, size, counts):
    assert write(tmp_path / "stg", "--size", size) == 0
    paths = [tmp_path / "stg" / f"{split}.jsonl" for split in ("train", "iid", "ood")]
    assert capsys.readouterr().out.split() == list(map(str, paths))
    assert tuple(len(read_records(path)) for path in paths) == counts


def test_records_have_the_published_form(tmp_path, shared):
    assert write(tmp_path, "--train-records", 3, "--test-records", 2, "--seed", 5) == 0
    folder = shared / "data/cat_reference/STG"
    published = (folder / "spurious_token_game_train3.jsonl").read_text().splitlines()[0]
    ours = (tmp_path / "train.jsonl").read_text().splitlines()[0]

    def form(line):
        row = json.loads(line)
        ((effect, causes),) = (pair for note in row["important"] for pair in note.items())
        assert effect == row["target"]
        assert all(cause in row["input"] for cause in causes)
        return list(row), len(causes), sorted(cause.split(": ")[0] for cause in causes)

    assert form(ours) == form(published)
    assert len(read_records(tmp_path / "train.jsonl")) == 3
    assert len(read_records(tmp_path / "ood.jsonl")) == 2


def test_existing_files_are_kept(tmp_path, capsys):
    (tmp_path / "ood.jsonl").write_text("mine")
    assert write(tmp_path) == 2
    assert "ood.jsonl is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ood.jsonl"]
    assert (tmp_path / "ood.jsonl").read_text() == "mine"


def test_a_number_of_records_must_be_positive(tmp_path, capsys):
    assert write(tmp_path / "new", "--train-records", 0) == 2
    assert "error: --train-records must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
