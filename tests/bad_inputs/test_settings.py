"""Settings that cannot be: every number out of its range, every choice that there is not."""

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from cat_jax import tasks
from cat_jax.config import (
    Guidance,
    LoraConfig,
    MeshShape,
    Optimizer,
    PretrainedLora,
    RunConfig,
    Scratch,
    Training,
)
from cat_jax.ranges import declared_ranges

TUNING = {
    "model.lora": LoraConfig,
    "guidance": Guidance,
    "optimizer": Optimizer,
    "train": Training,
    "train.mesh": MeshShape,
    "model": PretrainedLora,
    "data": type(tasks.files(train="a")),
    "": RunConfig,
}
GAME = {"model": Scratch, "data": tasks.STG, "": RunConfig}


def values_out_of(kind, range_):
    """Values of a command line that are out of a range, or no numbers."""
    if kind is int:
        yield from ("-1", str(10**30), "2.5")
    else:
        yield from ("nan", "-1")
        yield from (["1e30"] if range_.le != float("inf") else [])


def choices(hint):
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((found for part in get_args(hint) if (found := choices(part))), ())


def numbers_of(sections):
    for section, kind in sections.items():
        for name, (number, range_) in declared_ranges(kind).items():
            flag = "--" + f"{section}.{name}".lstrip(".").replace("_", "-")
            yield from ((flag, value) for value in values_out_of(number, range_))


def choices_of(sections):
    for section, kind in sections.items():
        for field in dataclasses.fields(kind):
            if choices(get_type_hints(kind)[field.name]):
                yield "--" + f"{section}.{field.name}".lstrip(".").replace("_", "-"), "zebra"


def finetune(commands, *arguments):
    return commands.finetune(*arguments, config="cat_lora")


@pytest.mark.parametrize(("flag", "value"), [*numbers_of(TUNING)])
def test_numbers_of_a_fine_tuning(commands, flag, value):
    said = finetune(commands, flag, value)
    assert flag in said
    assert (value if value in ("2.5", str(10**30)) else f"got {float(value):g}") in said


@pytest.mark.parametrize(("flag", "value"), [*choices_of(TUNING)])
def test_choices_of_a_fine_tuning(commands, flag, value):
    assert flag in finetune(commands, flag, value)


@pytest.mark.parametrize(("flag", "value"), [*numbers_of(GAME), *choices_of(GAME)])
def test_settings_of_a_game(commands, flag, value):
    said = commands("train_stg", "stg_tiny", "--out", commands.folder / "runs", flag, value)
    assert flag in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--optimizer.warmup", "1"], "--optimizer.warmup must be at least 0 and less than 1"),
        (["--optimizer.b2", "1"], "--optimizer.b2 must be"),
        (["--optimizer.weight-decay", "9", "--optimizer.learning-rate", "1"], "turn the sign"),
        (["--optimizer.learning-rate", "0"], "greater than 0"),
        (["--optimizer.clip", "0"], "greater than 0"),
        (["--guidance.rate", "inf"], "--guidance.rate"),
        (["--guidance.weight", "inf"], "--guidance.weight"),
        (["--guidance.alpha", "0", "--guidance.form", "hinge"], "--guidance.alpha is 0"),
        (["--guidance.layers", "7"], "names layer 7, but the model has layers 0 to 1"),
        (["--guidance.layers"], "--guidance.layers"),
        (["--model.lora.targets"], "--model.lora.targets"),
        (["--model.lora.targets", "q_proj", "q_proj"], "must be different names"),
        (["--model.lora.rank", "0"], "--model.lora.rank"),
        (["--model.lora.dropout", "1"], "--model.lora.dropout"),
        (["--seed", str(2**32)], "--seed must be"),
        (["--train.batch-size", "10"], "fewer than one batch of 10"),
        (["--train.accumulate", "3"], "must divide train.batch_size (4)"),
        (["--train.mesh.fsdp", "3"], "train.mesh"),
        (["--train.mesh.tensor", "2"], "train.mesh"),
        (["--train.patience", "2"], "needs train.best"),
        (["--train.best", "iid"], "nothing is measured while training"),
        (["--train.best", "ids", "--data.validation-share", "0.4"], "is 'ids', but what is"),
        (["--train.best", "", "--data.validation-share", "0.4"], "is '', but what is"),
        (["--train.profile", "train.jsonl"], "--train.profile is train.jsonl, but"),
        (["--train.profile", "train.jsonl/x"], "--train.profile is train.jsonl/x, but"),
        (["--train.profile", "x" * 300], "--train.profile"),
        (["--train.max-length", "1"], "fit in 1 tokens"),
        (["--train.stepz", "3"], "--train.stepz"),
        (["--train.wandb-project", "x"], "wandb"),
        (["--data.validation-share", "0.001"], "sets 0 of them aside"),
        (["--data.validation-share", "0.99"], "sets 9 of them aside"),
        (["--model.attention", "mosaic_tpu"], "needs a TPU"),
        (["--model.attention", "mosaic_gpu"], "mosaic_gpu"),
        (["--model.remat", "attention"], "remat"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_settings_that_do_not_go_together(commands, arguments, said):
    assert said in finetune(commands, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--temperature", "nan"],
        ["--temperature", "-1"],
        ["--temperature", "inf"],
        ["--temperature", "1", "--top-p", "0"],
        ["--temperature", "1", "--top-p", "nan"],
        ["--temperature", "1", "--top-k", "0"],
        ["--top-k", "3"],
        ["--seed", "-1"],
        ["--seed", str(2**32)],
        ["--max-new-tokens", "0"],
        ["--dtype", "float8"],
        ["--prompt"],
        ["--prompt", ""],
    ],
    ids=" ".join,
)
def test_settings_of_generation(commands, arguments):
    prompt = () if "--prompt" in arguments else ("--prompt", "a=3")
    commands("generate", commands.model, *prompt, *arguments)


@pytest.mark.parametrize("value", ["-1", "0", str(10**30), "x", "2.5"])
@pytest.mark.parametrize("flag", ["--data.train-records", "--data.test-records"])
def test_sizes_of_generated_files(commands, monkeypatch, flag, value):
    from experiments import generate_data

    monkeypatch.setattr(generate_data.main, "__defaults__", (None,))
    assert flag in commands("generate_data", "stg", commands.folder / "new", flag, value)
