"""What the pages in docs/ show runs as it stands there."""

import re
from pathlib import Path

import jax
import pytest
from transformers import AutoConfig, AutoTokenizer

from cat_jax.data.conversations import read_rows
from cat_jax.models import LoraConfig, init_lora, load_pretrained, save_adapter

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
