"""One training run on one's own data, from command line to trained model."""

import dataclasses
import itertools
import json
import shutil
from functools import partial

import numpy as np
import pytest

from cat_jax.config import AttentionDropout, Guidance, Optimizer, RunConfig, Scratch, Training
from cat_jax.data.sources import write_records
from cat_jax.tasks import files as own_files
from cat_jax.tasks.stg import stg_records
from cat_jax.train.fit import fit
from cat_jax.train.metrics import read_metrics
from cat_jax.train.throughput import TIMINGS

TEMPLATE = (  # as Llama 2's; what is between the generation tags transformers calls trained
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
    "{{ ' ' + m.content + ' ' + eos_token }}{% endgeneration %}"
    "{% else %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Annotated records of the Spurious Token Game, and the same without annotation."""
    folder = tmp_path_factory.mktemp("files")
    records = list(itertools.islice(stg_records(seed=3, prefix=False), 60))
    write_records(folder / "annotated.jsonl", records)
    bare = [dataclasses.replace(record, important=()) for record in records]
    write_records(folder / "plain.jsonl", bare)
    return folder


@pytest.fixture
def config(add_config):
    """A configuration of the command line: a tiny model from scratch."""
    config = RunConfig(
        name="one",
        model=Scratch(width=16, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
        data=own_files(train="none.jsonl", validation_share=0.2),
        optimizer=Optimizer(learning_rate=1e-2),
        train=Training(
            steps=6, batch_size=8, log_every=1, eval_every=2, save_every=2, deterministic=True
        ),
        seed=5,
    )
    add_config(config)
    return config


@pytest.fixture
def command(run_command):
    return partial(run_command, "finetune")


def untimed(line):
    return {name: value for name, value in line.items() if name not in TIMINGS}


def metrics(folder):
    return list(map(untimed, read_metrics(folder / "metrics.jsonl")))


@pytest.mark.slow
def test_plain_training_leaves_all_it_says_and_repeats_its_bits(config, files, tmp_path, command):
    data = ("--data.train", files / "plain.jsonl", "--out", tmp_path)
    status, said, _ = command(config.name, *data)
    assert status == 0
    folder = tmp_path / "one"
    lines = metrics(folder)
    train = [line for line in lines if line["kind"] == "train"]
    points = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in points] == [0, 2, 4, 6]
    assert train[-1]["loss"] < train[0]["loss"]
    # Plain fine-tuning does not compute the statistic.
    assert not {"causal_mass", "guidance_loss"} & set().union(*lines)
    assert "training data: 48 records in 48 sequences" in said
    assert "validation data: 12 records in 12 sequences" in said

    summary = json.loads((folder / "summary.json").read_text())
    best = min(points[1:], key=lambda line: line["next_token_loss"])
    assert summary["steps"] == 6
    assert summary["tokens_per_second"] > 0
    assert summary["validation"]["first"].items() <= points[0].items()
    assert summary["validation"]["best"].items() <= best.items()
    assert summary["validation"]["last"].items() <= points[-1].items()
    assert summary["model"] == str(folder / "model")
    assert "test" not in summary
    assert f"best {best['next_token_loss']:.4f} (step {best['step']})" in said
    assert f"trained: {folder / 'model'}" in said
    assert (folder / "model" / "model.safetensors").is_file()
    settings = json.loads((folder / "config.json").read_text())
    assert settings["guidance"] is None
    assert settings["data"]["train"] == str(files / "plain.jsonl")
    assert len(json.loads((folder / "environment.json").read_text())) == 1

    assert command(config.name, *data, "--name", "again")[0] == 0
    assert metrics(tmp_path / "again") == lines


def test_a_regularizer_is_that_of_fit(config, add_config, files, tmp_path, command):
    add_config(dataclasses.replace(config, name="two", regularizer=AttentionDropout()))
    options = ("--data.train", files / "annotated.jsonl", "--regularizer.rate", 0.75)
    assert command("two", *options, "--out", tmp_path)[0] == 0
    given = {"train": config.train, "optimizer": config.optimizer, "seed": config.seed}
    task = dataclasses.replace(config.data, train=str(files / "annotated.jsonl"))
    records = task.training_data(config.seed)
    run = fit(config.model, records, regularizer=AttentionDropout(rate=0.75), **given)
    plain = fit(config.model, records, **given)
    losses, expected, other = (
        [line["next_token_loss"] for line in lines if line["kind"] == "train"]
        for lines in (metrics(tmp_path / "two"), run.history, plain.history)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert np.abs(np.subtract(losses, other)).min() > 1e-5
    settings = json.loads((tmp_path / "two" / "config.json").read_text())
    assert settings["regularizer"] == {"rate": 0.75}


@pytest.mark.slow
def test_test_files_are_evaluated(config, files, tmp_path, command):
    write_records(tmp_path / "odd.jsonl", stg_records_of("ood", 5))
    arguments = ("--data.train", files / "plain.jsonl", "--data.test-files", tmp_path / "odd.jsonl")
    status, said, _ = command(config.name, *arguments, "--train.steps", 2, "--out", tmp_path)
    assert status == 0
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert 0 <= summary["test"]["odd"] <= 1
    assert 0 < summary["test"]["causal_mass"] < 1
    mass, share = summary["test"]["causal_mass"], summary["test"]["odd"]
    assert f"test: odd {share:.1%}, causal_mass {mass:.1%}" in said


def stg_records_of(split, count, seed=3):
    return list(itertools.islice(stg_records(split=split, seed=seed, prefix=False), count))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--guidance.weight", 1], "no training record is annotated; guidance needs the field"),
        (["--data.validation-share", 0.001], "sets 0 of them aside; choose another share"),
        (["--data.validation-share", 0.999], "sets 60 of them aside; choose another share"),
        (["--data.train", "no.jsonl"], "cannot read no.jsonl"),
        (["--data.test-files", "no.jsonl"], "cannot read no.jsonl"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    config, add_config, files, tmp_path, command, options, message
):
    if "--guidance.weight" in options:
        add_config(dataclasses.replace(config, guidance=Guidance()))
    data = ("--data.train", files / "plain.jsonl")
    status, _, error = command(config.name, *data, *options, "--out", tmp_path / "runs")
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_validation_records_that_do_not_fit(config, files, tmp_path, command):
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "Smoking: 8, " * 200}) + "\n")
    data = ("--data.train", files / "plain.jsonl", "--data.validation", tmp_path / "long.jsonl")
    options = ("--data.validation-share", 0, "--out", tmp_path / "runs")
    status, _, errors = command(config.name, *data, *options)
    assert status == 2
    assert "none of 1 validation records fits in 256 tokens" in errors
    assert not (tmp_path / "runs").exists()


def test_records_set_aside_depend_on_the_seed_alone(files):
    path = str(files / "plain.jsonl")
    task = own_files(train=path, validation_share=0.25)

    def divided(seed, task=task):
        return task.records("train", seed), task.records("validation", seed)

    train, held = divided(1)
    assert (train, held) == divided(1)
    assert (len(train), len(held)) == (45, 15)
    assert divided(2)[1] != held
    everything = own_files(train=path).records("train", 1)
    assert "validation" not in own_files(train=path).splits
    assert sorted(r.text for r in train + held) == sorted(r.text for r in everything)
    assert len(everything) == 60
    assert divided(1, own_files(train=path, validation=path)) == (everything, everything)


@pytest.fixture(scope="module")
def stories(shared, tmp_path_factory):
    """The small pretrained model with a chat template."""
    folder = tmp_path_factory.mktemp("model") / "stories"
    shutil.copytree(shared / "models/stories260K", folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATE}))
    return folder


def chat(record, annotated):
    """A record as two turns; the first answer is annotated with causes in the question."""
    (note,) = [note for note in record.important if note.effect.text == record.target][:1]
    causes = [{"text": c.text, "message": 0} for c in note.causes]
    answer = {"role": "assistant", "content": record.target}
    return {
        "messages": [
            {"role": "user", "content": record.input.strip()},
            answer | ({"important": [{record.target: causes}]} if annotated else {}),
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes, I am."},
        ]
    }


def write(path, items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


SHORT = [
    *("--model.dtype", "float32", "--model.remat", "none", "--optimizer.learning-rate", 2e-3),
    *("--train.steps", 12, "--train.batch-size", 8, "--train.eval-every", 12),
    *("--train.log-every", 1, "--train.max-length", 256),
]


def torch_loss(folder, conversations):
    """Cross entropy of all that the assistant says, as transformers renders and computes it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    total = count = 0
    for conversation in conversations:
        messages = [{"role": m["role"], "content": m["content"]} for m in conversation["messages"]]
        found = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        ids = torch.tensor(found["input_ids"])
        labels = torch.where(torch.tensor(found["assistant_masks"]) == 1, ids, -100)
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        loss = torch.nn.CrossEntropyLoss(ignore_index=-100, reduction="sum")(logits, labels[1:])
        total, count = total + float(loss), count + int((labels[1:] != -100).sum())
    return total / count


@pytest.mark.slow
def test_conversations_train_and_validate_as_torch_says(stories, tmp_path, command):
    records = list(itertools.islice(stg_records(seed=3, prefix=False), 40))
    train = write(tmp_path / "train.jsonl", [chat(record, False) for record in records[:27]])
    held_out = [chat(record, False) for record in records[27:]]
    held_out[0]["messages"][1]["content"] += " is what " * 9  # sequences of different weight
    validation = write(tmp_path / "validation.jsonl", held_out)
    data = ("--data.train", train, "--data.validation", validation, "--out", tmp_path)
    assert command("sft", "--model.name", stories, *data, *SHORT)[0] == 0
    lines = list(read_metrics(tmp_path / "sft/metrics.jsonl"))
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    first, point = [line for line in lines if line["kind"] == "eval"]
    assert (first["step"], point["step"]) == (0, 12)
    expected = torch_loss(tmp_path / "sft/model", held_out)
    np.testing.assert_allclose(point["next_token_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(point["perplexity"], np.exp(expected), rtol=1e-4)


@pytest.mark.slow
def test_adapters_train_on_conversations_of_which_some_are_annotated(stories, tmp_path, command):
    records = list(itertools.islice(stg_records(seed=4, prefix=False), 60))
    items = [chat(record, annotated=n % 2) for n, record in enumerate(records)]
    train = write(tmp_path / "some.jsonl", items)
    data = ("--data.train", train, "--data.validation-share", 0.2, "--out", tmp_path)
    lora = ("--model.lora.rank", 8, "--train.save-every", 6, "--train.pack")
    arguments = ("cat_lora", "--model.name", stories, *data, *SHORT, *lora)
    status, said, _ = command(*arguments)
    assert status == 0
    assert "records without annotation" in said
    lines = list(read_metrics(tmp_path / "cat_lora/metrics.jsonl"))
    losses = [line["next_token_loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert {"causal_mass", "guidance_loss"} <= lines[-1].keys()
    assert (tmp_path / "cat_lora/adapter/adapter_model.safetensors").is_file()
    status, _, errors = command(*arguments)
    assert status == 2
    assert "already holds a run" in errors
    shutil.rmtree(tmp_path / "cat_lora/checkpoints/12")  # as if it had ended after step 6
    assert command(*arguments, "--resume")[0] == 0
    resumed = list(read_metrics(tmp_path / "cat_lora/metrics.jsonl"))
    assert list(map(untimed, resumed)) == list(map(untimed, lines))
