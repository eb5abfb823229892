"""Names of runs, output folders, and run folders that are damaged or of another run."""

import shutil

import pytest
from etils import epath
from harness import SHORT, Commands

from cat_jax.train.lock import hold_workdir

NAMES = ("", " ", ".", "..", "../x", "a/../..", "x" * 300, "a\0b", "/", "a/b", "\n", "\ud800")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names(commands, name):
    assert "name" in commands.finetune("--name", name)


def test_a_name_that_is_a_whole_path(commands, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere") / "x"
    commands.finetune("--name", target)
    assert not target.exists()


@pytest.mark.parametrize("out", ["train.jsonl", "train.jsonl/x", "x" * 300, "a\0b", "/proc/x"])
def test_output_folders(commands, out):
    commands.finetune("--out", out)


def test_nothing_to_resume(commands):
    assert "nothing to resume" in commands.finetune("--resume")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model, records):
    """A run of one step."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("finished")
        commands = Commands(folder, patch, Silent(), model, records)
        given = ("--model.name", model, "--data.train", "train.jsonl", *SHORT)
        status, said = commands.run("finetune", "sft", *given, "--out", folder / "runs")
    assert status == 0, said
    return folder / "runs"


class Silent:
    def readouterr(self):
        return self

    err = ""


@pytest.fixture
def damaged(commands, finished):
    shutil.copytree(finished, commands.folder / "runs")
    return commands.folder / "runs/sft"


def test_a_folder_that_holds_a_run_already(commands, damaged):
    assert "already holds a run" in commands.finetune()


@pytest.mark.parametrize("arguments", [[], ["--resume"]], ids=["fresh", "resumed"])
@pytest.mark.parametrize("command", ["finetune", "compare"])
def test_a_folder_that_another_process_holds(commands, command, damaged, arguments):
    given = ("--data.train", "train.jsonl", "--data.iid", "train.jsonl")
    given += ("--data.ood", "train.jsonl", *SHORT, "--model.name", commands.model, "--out", "runs")
    given += ("--name", "sft", *arguments)
    with hold_workdir(epath.Path(damaged)):
        if command == "finetune":
            said = commands.finetune(*arguments)
        else:
            said = commands("compare", "own_data", *given)
    assert "runs/sft is in use by process" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--train.batch-size", "3"],
        ["--optimizer.learning-rate", "0.5"],
        ["--optimizer.decay-all"],
        ["--seed", "1"],
        ["--train.pack"],
    ],
    ids=" ".join,
)
def test_resuming_with_other_settings(commands, damaged, arguments):
    said = commands.finetune("--resume", *arguments)
    assert "was made with other settings" in said


@pytest.mark.parametrize("length", ["--train.steps", "--train.epochs"])
def test_resuming_to_more_steps_than_a_cosine_has(commands, damaged, length):
    said = commands.finetune("--resume", length, "2")
    assert ("cannot be extended from 1 to 2 steps" in said) == (length == "--train.steps")
    assert ("was made with other settings" in said) == (length == "--train.epochs")


@pytest.mark.parametrize("kind", ["empty", "truncated", "binary", "array", "text", "folder"])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "environment.json"])
def test_damaged_files_of_a_run(commands, damaged, name, kind):
    file = damaged / name
    good = file.read_bytes()
    file.unlink()
    if kind == "folder":
        file.mkdir()
    else:
        contents = {"empty": b"", "binary": bytes(range(256)), "array": b"[]", "text": b"hello"}
        file.write_bytes(contents.get(kind, good[: len(good) // 2]))
    assert name in commands.finetune("--resume")


@pytest.mark.parametrize("what", ["checkpoints", "checkpoints/1"])
def test_checkpoints_that_are_gone(commands, damaged, what):
    shutil.rmtree(damaged / what)
    assert "runs/sft/checkpoints" in commands.finetune("--resume")


@pytest.mark.parametrize("what", ["model/model.safetensors", "metrics.jsonl"])
def test_parts_of_a_finished_run_that_are_gone(commands, damaged, what):
    (damaged / what).unlink()
    assert f"runs/sft/{what.partition('/')[0]}" in commands.finetune("--resume")


def test_parts_of_an_unfinished_run_that_are_gone(commands, damaged):
    shutil.rmtree(damaged / "model")
    shutil.rmtree(damaged / "checkpoints")
    said = commands.finetune("--resume")
    assert "holds metrics up to step 1, but the checkpoints in" in said


def test_the_only_checkpoint_of_an_unfinished_run_is_damaged(commands, damaged):
    shutil.rmtree(damaged / "model")
    shutil.rmtree(damaged / "checkpoints/1/state")
    assert "none of the checkpoints in" in commands.finetune("--resume")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda items: [{**items[0], "target": "5"}, *items[1:]], "record 1 is the first with"),
        (lambda items: items[:-1], "8 records instead of 9; "),
        (lambda items: [*items, items[0]], "10 records instead of 9; "),
        (lambda items: [*items[:3], items[4], items[3], *items[5:]], "record 4 is the first with"),
        (lambda items: items[1:], "8 records instead of 9, record 1 the first that differs"),
    ],
    ids=["edited", "shortened", "lengthened", "reordered", "without the first"],
)
def test_resuming_with_other_records(commands, damaged, records, change, difference):
    commands.write("train.jsonl", change(records))
    said = commands.finetune("--resume")
    assert "runs/sft was begun with other training data" in said
    assert difference in said


def test_something_else_in_the_folder(commands):
    (commands.folder / "runs/sft").mkdir(parents=True)
    (commands.folder / "runs/sft/thesis.tex").write_text("mine")
    said = commands.finetune()
    assert "already holds a run" in said or "holds no run" in said


@pytest.mark.parametrize("text", ["[red]x", "[/]", "[/red]", "[bold"])
@pytest.mark.parametrize("option", ["--train.steps", "--data.train", "--train.best", "--zebra"])
def test_markup_is_shown_as_text(commands, option, text):
    assert text in commands.finetune(option, text)
