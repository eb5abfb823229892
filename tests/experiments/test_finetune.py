"""One training run on one's own data, from command line to trained model."""

import dataclasses
import io
import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cat_jax.config import Finetune, Guidance, Optimizer, OwnData, Scratch, Training
from cat_jax.data.records import read_lines, write_jsonl
from cat_jax.errors import InputError
from cat_jax.tasks.stg import stg_records
from cat_jax.train.metrics import read_metrics
from cat_jax.train.throughput import TIMINGS
from experiments import finetune as program
from experiments.command_line import exit_status
from experiments.finetune import batch_sharding, finetune

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
    write_jsonl(folder / "annotated.jsonl", records)
    bare = [dataclasses.replace(record, important=()) for record in records]
    write_jsonl(folder / "plain.jsonl", bare)
    return folder


@pytest.fixture
def config(files, tmp_path):
    return Finetune(
        name="one",
        data=OwnData(str(files / "plain.jsonl"), validation_share=0.2),
        model=Scratch(width=16, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
        optimizer=Optimizer(learning_rate=1e-2),
        train=Training(
            steps=6, batch_size=8, log_every=1, eval_every=2, save_every=2, deterministic=True
        ),
        seed=5,
        out=str(tmp_path / "runs"),
    )


def run(config):
    """Runs in this process; gives what it said and its lines of metrics."""
    said = io.StringIO()
    finetune(config, Console(file=said, width=200))
    lines = list(read_metrics(folder_of(config) / "metrics.jsonl"))
    return said.getvalue(), list(map(untimed, lines))


def untimed(line):
    return {name: value for name, value in line.items() if name not in TIMINGS}


def folder_of(config):
    return Path(config.out) / config.name


@pytest.mark.slow
def test_plain_training_leaves_all_it_says_and_repeats_its_bits(config):
    said, lines = run(config)
    train = [line for line in lines if line["kind"] == "train"]
    points = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in points] == [2, 4, 6]
    assert train[-1]["loss"] < train[0]["loss"]
    # Plain fine-tuning does not compute the statistic.
    assert not {"causal_mass", "guidance_loss"} & set().union(*lines)
    assert "training rows: 48 records in 48 rows" in said
    assert "validation rows: 12 records in 12 rows" in said

    folder = folder_of(config)
    summary = json.loads((folder / "summary.json").read_text())
    best = min(points, key=lambda line: line["next_token_loss"])
    assert summary["steps"] == 6
    assert summary["tokens_per_second"] > 0
    assert summary["validation"]["best"].items() <= best.items()
    assert summary["validation"]["last"].items() <= points[-1].items()
    assert summary["left"] == str(folder / "model")
    assert f"best {best['next_token_loss']:.4f} (step {best['step']})" in said
    assert f"trained: {folder / 'model'}" in said
    assert (folder / "model" / "model.safetensors").is_file()
    assert json.loads((folder / "config.json").read_text())["guidance"] is None
    assert len(json.loads((folder / "environment.json").read_text())) == 1

    assert run(dataclasses.replace(config, name="again"))[1] == lines


def test_guidance_without_annotation_is_refused(config):
    with pytest.raises(InputError, match="no training row has an annotation whose words stand in"):
        run(dataclasses.replace(config, guidance=Guidance()))
    assert not folder_of(config).exists()


def test_rows_set_aside_depend_on_the_seed_alone(files):
    data = OwnData(str(files / "plain.jsonl"), validation_share=0.25)
    (train, held), (train_again, held_again) = batch_sharding(data, 1), batch_sharding(data, 1)
    assert (train, held) == (train_again, held_again)
    assert (len(train), len(held)) == (45, 15)
    everything, nothing = batch_sharding(OwnData(data.train), 1)
    assert nothing == []
    rank = {id(row): n for n, row in enumerate(everything)}
    assert len(rank) == 60
    assert sorted(row.text for row in train + held) == sorted(row.text for row in everything)
    assert batch_sharding(data, 2)[1] != held
    assert batch_sharding(OwnData(data.train, data.train), 1) == (everything, everything)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_leaves_nothing(files, share):
    with pytest.raises(InputError, match="choose another share"):
        batch_sharding(OwnData(str(files / "plain.jsonl"), validation_share=share), 1)


def test_validation_rows_that_do_not_fit(config, files, tmp_path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "Smoking: 8, " * 200}) + "\n")
    data = OwnData(str(files / "plain.jsonl"), str(tmp_path / "long.jsonl"))
    with pytest.raises(InputError, match="none of 1 validation rows fits in 256 tokens"):
        run(dataclasses.replace(config, data=data))


# --- a pretrained model, from the command line ---


@pytest.fixture(scope="module")
def stories(shared, tmp_path_factory):
    """The small pretrained model with a chat template."""
    folder = tmp_path_factory.mktemp("model") / "stories"
    shutil.copytree(shared / "models/stories260K", folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATE}))
    return folder


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["finetune", *map(str, arguments)])
    return exit_status(program.main)


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


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
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
    for row in conversations:
        messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
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
def test_conversations_train_and_validate_as_torch_says(stories, tmp_path, monkeypatch):
    records = list(itertools.islice(stg_records(seed=3, prefix=False), 40))
    train = write(tmp_path / "train.jsonl", [chat(record, False) for record in records[:27]])
    held_out = [chat(record, False) for record in records[27:]]
    held_out[0]["messages"][1]["content"] += " is what " * 9  # rows of different weight
    validation = write(tmp_path / "validation.jsonl", held_out)
    data = ("--data.train", train, "--data.validation", validation, "--out", tmp_path)
    assert command(monkeypatch, "sft", "--model.name", stories, *data, *SHORT) == 0
    lines = list(read_metrics(tmp_path / "sft/metrics.jsonl"))
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    (point,) = [line for line in lines if line["kind"] == "eval"]
    expected = torch_loss(tmp_path / "sft/model", held_out)
    np.testing.assert_allclose(point["next_token_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(point["perplexity"], np.exp(expected), rtol=1e-4)


@pytest.mark.slow
def test_adapters_train_on_rows_of_all_kinds(stories, files, tmp_path, monkeypatch, capsys):
    records = list(itertools.islice(stg_records(seed=4, prefix=False), 20))
    rows = [chat(record, annotated=n % 2) for n, record in enumerate(records)]
    rows += [{"text": record.text} for record in records]
    rows += [row for _, row in read_lines(files / "plain.jsonl")]
    train = write(tmp_path / "mixed.jsonl", rows)
    data = ("--data.train", train, "--data.validation-share", 0.2, "--out", tmp_path)
    lora = ("--model.lora.rank", 8, "--train.save-every", 6, "--train.pack")
    arguments = ("cat_lora", "--model.name", stories, *data, *SHORT, *lora)
    assert command(monkeypatch, *arguments) == 0
    assert "rows without any mask" in capsys.readouterr().out
    lines = list(read_metrics(tmp_path / "cat_lora/metrics.jsonl"))
    losses = [line["next_token_loss"] for line in lines if line["kind"] == "train"]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert {"causal_mass", "guidance_loss"} <= lines[-1].keys()
    assert (tmp_path / "cat_lora/adapter/adapter_model.safetensors").is_file()
    assert command(monkeypatch, *arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "cat_lora/checkpoints/12")  # as if it had ended after step 6
    assert command(monkeypatch, *arguments, "--resume") == 0
    resumed = list(read_metrics(tmp_path / "cat_lora/metrics.jsonl"))
    assert list(map(untimed, resumed)) == list(map(untimed, lines))
