import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for harness.py

from harness import Commands

from cat_jax.models import save_pretrained
from cat_jax.testing import toy_dicts, toy_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny model in Hugging Face format."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    toy = toy_model()
    save_pretrained(folder, toy.model.config, toy.params, toy.tokenizer)
    return folder


@pytest.fixture(scope="session")
def records():
    """Annotated records that the model can read."""
    return toy_dicts(count=9)


@pytest.fixture
def commands(tmp_path, monkeypatch, capfd, model, records):
    return Commands(tmp_path, monkeypatch, capfd, model, records)
