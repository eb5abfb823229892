"""What the pages in docs/ show runs as it stands there."""

import re
import shlex
import subprocess
from pathlib import Path

import jax
import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer

from cat_jax.config import Experiment
from cat_jax.data.conversations import read_rows
from cat_jax.models import LoraConfig, init_lora, load_pretrained, save_adapter
from experiments.command_line import parse_config

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "decoding.md").read_text()


@pytest.mark.slow
def test_the_decoding_example_runs(shared, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    load = AutoTokenizer.from_pretrained

    def with_template(name):
        tokenizer = load(name)
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", with_template)
    found = {}
    exec(code.replace("Qwen/Qwen2.5-1.5B-Instruct", str(shared / "models/stories260K")), found)
    assert len(found["answers"]) == 2
    assert all(0 < len(answer) <= 50 for answer in found["answers"])


@pytest.mark.slow
def test_the_examples_of_weights_run(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "".join(re.findall(r"```python\n(.*?)```", (DOCS / "models.md").read_text(), re.DOTALL))
    source = shared / "models/stories260K"
    config, _ = load_pretrained(source)
    lora = LoraConfig(rank=3)
    save_adapter("adapter", config, init_lora(jax.random.key(0), config, lora), lora)
    exec(code.replace("Qwen/Qwen2.5-1.5B", str(source)), {})
    assert len(AutoTokenizer.from_pretrained("exported")) == 512
    theirs, ours = (AutoConfig.from_pretrained(folder) for folder in (source, "exported"))
    assert ours.max_position_embeddings == theirs.max_position_embeddings
    assert "bfloat16" in str(ours.dtype)
    assert load_pretrained("merged")[0] == config


RECIPES = (DOCS / "distributed.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```bash\n(.*?)```", RECIPES, re.DOTALL))
def test_the_commands_that_start_processes_are_shell(code):
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    for inner in re.findall(r"command='(.*?)'", code, re.DOTALL):
        subprocess.run(["bash", "-n"], input=inner, text=True, check=True)


def test_the_manifest_starts_as_many_processes_as_the_slice_has_hosts():
    (manifest,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", RECIPES, re.DOTALL))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    wide, high = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert job["completions"] == job["parallelism"]
    assert job["completions"] * container["resources"]["limits"]["google.com/tpu"] == wide * high
    subprocess.run(["bash", "-n"], input=container["args"][0], text=True, check=True)


def test_the_options_of_the_recipes_exist():
    for words in re.findall(r"experiments\.train_stg (\w+ .*?)--distributed", RECIPES, re.DOTALL):
        arguments = shlex.split(words.replace("\\\n", " ").replace('"$out"', "runs"))
        config = parse_config(
            Experiment,
            [*arguments, "--distributed"],
            program="experiments.train_stg",
            default="",
            description="",
        )
        assert config.distributed
        assert config.train.mesh.fsdp in (16, 32)


def test_the_example_conversation_is_a_row(tmp_path):
    (row,) = re.findall(r"```json\n(.*?)```", (DOCS / "finetuning.md").read_text(), re.DOTALL)
    (tmp_path / "rows.jsonl").write_text(row)
    (conversation,) = read_rows(tmp_path / "rows.jsonl")
    assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]
    (note,) = conversation.important
    assert note.effect.text == conversation.messages[2].content
    assert all(cause.text in conversation.messages[1].content for cause in note.causes)
    pinned = re.search(
        r'`\{"text": "(.*?)", "start": (\d+), "message": (\d+)\}`',
        (DOCS / "finetuning.md").read_text(),
    )
    text, start, message = pinned.groups()
    assert conversation.messages[int(message)].content.startswith(text, int(start))
