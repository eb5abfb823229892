import signal
from pathlib import Path

import pytest

import configs
from cat_jax.config import Experiment, Finetune, GeneratedData, JsonlData, OwnData
from cat_jax.errors import Diverged, InputError, Interrupted
from experiments.command_line import config_names, exit_status, load_config, parse_config

NEEDED = {
    "own_data": ("--data.train", "--data.iid", "--data.ood", "--model.name"),
    **{
        f"{method}{form}": ("--data.train", "--model.name")
        for method in ("sft", "cat")
        for form in ("", "_lora")
    },
}
DEFAULTS = {Experiment: "stg_tiny", Finetune: "sft"}


def parse(*arguments, kind=Experiment):
    return parse_config(
        kind, arguments, program="experiments.x", default=DEFAULTS[kind], description="Trains."
    )


def refused(capsys, *arguments, kind=Experiment):
    """What the command line says to arguments that it leaves with status 2 on."""
    with pytest.raises(SystemExit) as caught:
        parse(*arguments, kind=kind)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return " ".join(said.err.replace("│", " ").split())


EVERY = [(kind, name) for kind in DEFAULTS for name in config_names(kind)]


def test_every_config_has_a_name():
    files = Path(next(iter(configs.__path__))).glob("*.py")
    names = sorted(file.stem for file in files if file.stem != "__init__")
    assert sorted(name for _, name in EVERY) == names
    assert {(Experiment, "stg_tiny"), (Experiment, "own_data"), (Finetune, "cat")} <= set(EVERY)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_config_is_ready_or_names_what_it_needs(kind, name, capsys):
    options = NEEDED.get(name, ())
    if options:
        said = refused(capsys, name, kind=kind)
        assert all(f"{option} STR" in said for option in options)
    given = [word for option in options for word in (option, f"my {option}")]
    config = parse(name, *given, kind=kind)
    assert isinstance(config, kind)
    assert config.name == name
    if not options:
        assert config == load_config(name, kind)


def test_a_config_of_one_program_is_none_of_the_other():
    with pytest.raises(
        InputError, match="no config named 'stg_tiny'; there are cat, cat_lora, sft"
    ):
        parse("stg_tiny", kind=Finetune)


def test_guidance_of_a_fine_tuning():
    needed = ("--data.train", "a.jsonl", "--model.name", "folder")
    assert parse(*needed, kind=Finetune).guidance is None
    config = parse("cat_lora", *needed, "--guidance.weight", "2", "--seed", "3", kind=Finetune)
    assert (config.guidance.weight, config.guidance.form, config.seed) == (2.0, "mass_nll", 3)
    assert config.data == OwnData("a.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.validation-share", "1"], "data.validation_share is a share from 0 to below 1"),
        (["--data.validation", "b", "--data.validation-share", "0.1"], "give one of them"),
    ],
)
def test_bad_values_of_a_fine_tuning(capsys, arguments, message):
    needed = ("--data.train", "a.jsonl", "--model.name", "folder")
    assert message in refused(capsys, *needed, *arguments, kind=Finetune)


def test_own_files_reach_the_config():
    values = ["a.jsonl", "b.jsonl", "c.jsonl", "folder"]
    words = [word for pair in zip(NEEDED["own_data"], values, strict=True) for word in pair]
    config = parse("own_data", *words, "--data.test-files", "d.jsonl", "e.jsonl")
    assert config.data == JsonlData("a.jsonl", "b.jsonl", "c.jsonl", ("d.jsonl", "e.jsonl"))
    assert config.model.name == "folder"


def test_without_a_name_the_default_is_meant():
    assert parse() == load_config("stg_tiny", Experiment)
    assert parse("--seeds", "4", "5").seeds == (4, 5)


def test_fields_are_replaced_and_the_others_stay():
    config = parse("stg_tiny", "--train.steps", "7", "--guidance.layers", "0", "1", "--resume")
    assert (config.train.steps, config.guidance.layers, config.resume) == (7, (0, 1), True)
    default = load_config("stg_tiny", Experiment)
    assert config.train.batch_size == default.train.batch_size
    assert config.guidance.weight == default.guidance.weight != 1.0
    assert isinstance(config.data, GeneratedData)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("stg_tny", "did you mean stg_tiny?"), ("zebra", "there are own_data, stg_")],
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
        (["--train.steps", "0"], "train.steps must be greater than 0, got 0"),
        (["--train.batch-size", "-2"], "train.batch_size must be greater than 0, got -2"),
        (["--data.game", "chess"], "'stg', 'stg_h'"),
        (["--data.test-rows", "0"], "data.test_rows must be greater than 0, got 0"),
        (["--guidance.weight", "-1"], "guidance.weight must not be negative, got -1"),
        (["--guidance.form", "square"], "'hinge'"),
        (["--optimizer.warmup", "1.5"], "optimizer.warmup is a share from 0 to 1, got 1.5"),
        (["--optimizer.learning-rate", "nan"], "optimizer.learning_rate must be greater than 0"),
        (["--model.num-heads", "5"], "model.num_heads (5) must divide model.width (64)"),
        (["--seeds", "1", "1"], "seeds must be different numbers, at least one, got (1, 1)"),
    ],
)
def test_bad_values_are_refused_by_name(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_help_names_every_config(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "Trains." in said
    assert all(name in said for name in config_names(Experiment))


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("the file is empty"), 2, "error: the file is empty\n"),
        (Diverged("nan at step 3"), 1, "error: nan at step 3\n"),
        (Interrupted("stopped", signal.SIGINT), 130, "stopped; add --resume to continue\n"),
        (Interrupted("stopped", signal.SIGTERM), 143, "stopped; add --resume to continue\n"),
        (KeyboardInterrupt(), 130, "stopped; finished runs are saved, add --resume to continue\n"),
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
