import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cat_jax.data.sources import read_records

sys.path.insert(0, str(Path(__file__).parent))  # for small_tokenizers.py


@pytest.fixture
def read(tmp_path):
    """Reads JSONL lines, given as text or as values."""

    def read(*lines):
        path = tmp_path / "rows.jsonl"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("\n".join(texts))
        return read_records(path)

    return read


@pytest.fixture(scope="session")
def tokenizer(shared):
    """The tokenizer of Qwen2.5."""
    return AutoTokenizer.from_pretrained(shared / "tokenizers/qwen2.5")


@pytest.fixture
def qwen(tokenizer, monkeypatch):
    """The tokenizer of Qwen2.5, whose template a test may replace."""
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template)
    return tokenizer
