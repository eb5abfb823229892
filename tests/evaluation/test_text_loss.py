import math
import os
from pathlib import Path

import numpy as np
import pytest

from cat_jax.errors import InputError
from cat_jax.evaluation import python_texts, text_loss
from cat_jax.models import load_language_model
from cat_jax.testing import toy_model

TEXTS = ["It rained all day, and nobody\nminded: 7 of 9.", "x", "", "Short. ", "q" * 40]


def test_equals_torch_on_windows(tmp_path):
    """Windows of 11 tokens, each from the last token of the one before, read by torch."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = toy_model().tokenizer
    torch.manual_seed(0)
    oracle = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer) + 3,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    ).eval()
    oracle.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    losses = []
    for text in TEXTS:
        ids = torch.tensor(tokenizer(text).input_ids)
        for start in range(0, len(ids) - 1, 11):
            window = ids[start : start + 12]
            logits = oracle(window[None, :-1]).logits[0]
            losses += torch.nn.functional.cross_entropy(
                logits, window[1:], reduction="none"
            ).tolist()
    model = load_language_model(tmp_path)
    found = text_loss(model, TEXTS, max_length=11, batch_size=3)
    assert found.tokens == len(losses) == sum(max(0, len(text) - 1) for text in TEXTS)
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert str(found).endswith(f"{found.tokens} tokens")


def test_windows_are_no_longer_than_the_model():
    short, long = (toy_model(max_positions=size) for size in (16, 2048))
    text = TEXTS[:1] * 3
    assert text_loss(short, text).loss == text_loss(long, text, max_length=16).loss
    assert text_loss(short, text).loss != text_loss(long, text).loss


def test_texts_without_a_token_to_predict_are_refused():
    model = toy_model()
    with pytest.raises(InputError, match="no token to predict"):
        text_loss(model, ["", "x"])
    with pytest.raises(InputError, match="max_length must be at least 1"):
        text_loss(model, TEXTS, max_length=0)


def test_every_python_has_texts(monkeypatch):
    texts = python_texts()
    assert len(texts) == 15
    assert "GNU" in texts[0]
    assert 50_000 < sum(map(len, texts)) < 200_000
    assert len(texts.sha256) == 64
    assert texts == python_texts()
    assert "python_texts 1, Python 3." in texts.name
    changed = type(texts)(texts.name, (*texts[:-1], texts[-1] + "."))
    assert changed.sha256 != texts.sha256
    moved = type(texts)("", (texts[0] + texts[1][:1], texts[1][1:]))
    assert moved.sha256 != type(texts)("", texts[:2]).sha256
    monkeypatch.setattr(os, "__file__", str(Path(__file__).parent / "nowhere" / "os.py"))
    with pytest.raises(InputError, match="has no licence in"):
        python_texts()
