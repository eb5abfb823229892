import re
import signal
from pathlib import Path

import pytest

import configs
from cat_jax import tasks
from cat_jax.config import RunConfig
from cat_jax.errors import Diverged, InputError, Interrupted, SaveFailed, SettingError
from experiments import compare
from experiments.command_line import config_names, exit_status, load_config, parse_config

NEEDED = {
    "own_data": ("--data.train", "--data.iid", "--data.ood", "--model.name"),
    "attention_dropout": ("--data.train", "--model.name"),
    **{
        f"{method}{form}": ("--data.train", "--model.name")
        for method in ("sft", "cat")
        for form in ("", "_lora")
    },
}
DEFAULTS = {compare.Args: "stg_tiny", RunConfig: "sft"}


def parse(*arguments, kind=compare.Args):
    return parse_config(
        kind,
        arguments,
        program="experiments.x",
        default=DEFAULTS[kind],
        description="Trains.",
        wrap=compare.Args if kind is compare.Args else lambda config: config,
    )


def refused(capsys, *arguments, kind=compare.Args):
    """What the command line says to arguments that it leaves with status 2 on."""
    with pytest.raises((SystemExit, InputError)) as caught:
        parse(*arguments, kind=kind)
    said = capsys.readouterr()
    assert said.out == ""
    if isinstance(caught.value, InputError):  # of a constructor: nothing else is printed
        assert said.err == ""
        return str(caught.value)
    assert caught.value.code == 2
    return " ".join(said.err.replace("│", " ").split())


def test_every_config_has_a_name():
    files = Path(next(iter(configs.__path__))).glob("*.py")
    assert config_names() == sorted(file.stem for file in files if file.stem != "__init__")
    assert {"stg_tiny", "own_data", "cat"} <= set(config_names())


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize("name", config_names())
def test_every_config_is_ready_or_names_what_it_needs(kind, name, capsys):
    options = NEEDED.get(name, ())
    if options:
        said = refused(capsys, name, kind=kind)
        assert all(re.search(rf"{option} (\{{None\}}\|)?STR", said) for option in options)
        assert "(required)" in said
    given = [word for option in options for word in (option, f"my {option}")]
    args = parse(name, *given, kind=kind)
    assert isinstance(args, kind)
    config = args.run if kind is compare.Args else args
    assert config.name == name
    if not options:
        assert config == load_config(name)


def test_guidance_of_a_fine_tuning():
    needed = ("--data.train", "a.jsonl", "--model.name", "folder")
    assert parse(*needed, kind=RunConfig).guidance is None
    config = parse("cat_lora", *needed, "--guidance.weight", "2", "--seed", "3", kind=RunConfig)
    assert (config.guidance.weight, config.guidance.form, config.seed) == (2.0, "mass_nll", 3)
    assert config.data == tasks.files(train="a.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data.validation-share", "1"],
            "data.validation_share must be at least 0 and less than 1, got 1.0",
        ),
        (["--data.validation", "b", "--data.validation-share", "0.1"], "give one of them"),
    ],
)
def test_bad_values_of_a_fine_tuning(capsys, arguments, message):
    needed = ("--data.train", "a.jsonl", "--model.name", "folder")
    assert message in refused(capsys, *needed, *arguments, kind=RunConfig)


def test_own_files_reach_the_config():
    values = ["a.jsonl", "b.jsonl", "c.jsonl", "folder"]
    words = [word for pair in zip(NEEDED["own_data"], values, strict=True) for word in pair]
    config = parse("own_data", *words, "--data.test-files", "d.jsonl", "e.jsonl").run
    assert config.data == tasks.files(
        train="a.jsonl", iid="b.jsonl", ood="c.jsonl", test_files=("d.jsonl", "e.jsonl")
    )
    assert config.model.name == "folder"


def test_without_a_name_the_default_is_meant():
    assert parse() == compare.Args(load_config("stg_tiny"))
    assert parse("--train.steps", "5").run.name == "stg_tiny"


def test_methods_and_seeds_of_a_comparison():
    assert (parse().methods, parse().seeds) == (("baseline", "cat"), None)
    args = parse("--seeds", "4", "5", "--methods", "baseline", "cat", "cat_published")
    assert args.seeds == (4, 5)
    assert args.methods == ("baseline", "cat", "cat_published")


def test_fields_are_replaced_and_the_others_stay():
    config = parse("stg_tiny", "--train.steps", "7", "--guidance.layers", "0", "1", "--resume").run
    assert (config.train.steps, config.guidance.layers, config.resume) == (7, (0, 1), True)
    default = load_config("stg_tiny")
    assert config.train.batch_size == default.train.batch_size
    assert config.guidance.weight == default.guidance.weight != 1.0
    assert config.data == default.data
    assert isinstance(config.data, tasks.STG)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("stg_tny", "did you mean stg_tiny?"), ("zebra", "there are attention_dropout, cat, cat_l")],
)
def test_an_unknown_config_suggests_one(name, hint):
    with pytest.raises(InputError) as caught:
        parse(name)
    assert f"no config named '{name}'; {hint}" in str(caught.value)


def test_an_unknown_field_suggests_one(capsys):
    said = refused(capsys, "--train.stepz", "3")
    assert "--train.stepz" in said
    assert "--train.steps INT" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.steps", "many"], "--train.steps"),
        (["--train.steps", "0"], "train.steps must be at least 1 and at most 2,147,483,647, got 0"),
        (["--train.batch-size", "-2"], "train.batch_size must be at least 1"),
        (["--data.effect", "words"], "'target', 'answer'"),
        (["--data.test-records", "0"], "data.test_records must be at least 1"),
        (
            ["--guidance.weight", "-1"],
            "guidance.weight must be at least 0 and at most 1,000,000, got -1",
        ),
        (["--guidance.form", "square"], "'hinge'"),
        (
            ["--optimizer.warmup", "1.5"],
            "optimizer.warmup must be at least 0 and less than 1, got 1.5",
        ),
        (
            ["--optimizer.learning-rate", "nan"],
            "optimizer.learning_rate must be greater than 0 and at most 100, got nan",
        ),
        (["--model.num-heads", "5"], "model.num_heads (5) must divide model.width (64)"),
    ],
)
def test_bad_values_are_refused_by_name(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_negative_seed_is_refused():
    with pytest.raises(
        InputError, match="seed must be at least 0 and at most 4,294,967,295, got -1"
    ):
        parse("--seed", "-1")


def test_help_names_every_config(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "Trains." in said
    assert all(name in said for name in config_names())


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("the file is empty"), 2, "error: the file is empty\n"),
        (SettingError("a.b_c", "must be 1"), 2, "error: --a.b-c must be 1\n"),
        (Diverged("nan at step 3"), 1, "error: nan at step 3\n"),
        (SaveFailed("the disk is full"), 1, "error: the disk is full\n"),
        (Interrupted("stopped", signal.SIGINT), 130, "stopped; add --resume to continue\n"),
        (Interrupted("stopped", signal.SIGTERM), 143, "stopped; add --resume to continue\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_what_users_can_mend_is_a_sentence_and_a_status(capsys, error, status, said):
    assert exit_status(raising(error)) == status
    assert capsys.readouterr() == ("", said)


def test_success_is_silent_and_bugs_keep_their_traceback(capsys):
    assert exit_status(lambda: None) == 0
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ZeroDivisionError):
        exit_status(raising(ZeroDivisionError()))
