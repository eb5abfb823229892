"""Model folders that are not what they should be, read by three commands."""

import json
import shutil

import pytest

FIELDS = {
    "model_type": ("zebra", None, 3),
    "hidden_size": (0, -1, "x", None, 10**30),
    "num_attention_heads": (0, -1, 3, None),
    "num_key_value_heads": (0, -1, 3),
    "num_hidden_layers": (0, -1, 1.5),
    "head_dim": (0, -2, 7),
    "vocab_size": (0, 7),
    "intermediate_size": (0, "x"),
    "rope_theta": (0, -1, float("nan")),
    "rms_norm_eps": (-1.0, float("nan")),
    "hidden_act": ("zebra",),
    "quantization_config": ({"quant_method": "gptq"},),
}
BROKEN = {
    "empty": b"",
    "truncated": None,
    "binary": bytes(range(256)),
    "an array": b"[]",
    "null": b"null",
    "text": b"hello",
    "nested": b"[" * 100_000,
    "a long integer": b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "half a surrogate pair": b'{"model_type": "\\ud800"}',
    "NUL": b"\0\0\0",
    "a folder": "folder",
    "missing": "missing",
}


@pytest.fixture
def copied(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies") / "copied"
    shutil.copytree(model, folder)
    return folder


def read_by(commands, command, folder):
    if command == "finetune":
        return commands.finetune(model=folder)
    if command == "generate":
        return commands("generate", folder, "--prompt", "a=3")
    return commands("convert_weights", folder, commands.folder / "converted")


@pytest.mark.parametrize("command", ["finetune", "generate", "convert_weights"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        "none",
        "./none",
        "/none/at/all",
        "a/b/c",
        "train.jsonl",
        ".",
        "x" * 300,
        "a\0b",
        "~",
        "ü",
    ],
    ids=ascii,
)
def test_names(commands, command, name):
    read_by(commands, command, name)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values]
)
def test_values_of_a_configuration(commands, copied, field, value):
    file = copied / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    read_by(commands, "generate", copied)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_of_a_model(commands, copied, name, kind):
    file, content = copied / name, BROKEN[kind]
    good = file.read_bytes()
    file.unlink()
    if content == "folder":
        file.mkdir()
    elif content != "missing":
        file.write_bytes(good[: len(good) // 2] if content is None else content)
    read_by(commands, "generate", copied)
