import os
import sys
from types import SimpleNamespace

import pytest

from experiments import command_line


@pytest.fixture
def add_config(monkeypatch):
    """Gives command lines one more configuration, under its name."""
    names = command_line.config_names()

    def add(config):
        monkeypatch.setattr(command_line, "config_names", lambda: sorted({*names, config.name}))
        module = SimpleNamespace(CONFIG=config)
        monkeypatch.setitem(sys.modules, f"configs.{config.name}", module)

    return add


@pytest.fixture
def tpu_compiler():
    """Skip without libtpu; fail in CI."""
    try:
        import libtpu  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI=true, but libtpu is not installed: make test EXTRAS=test,compilers")
        pytest.skip("libtpu is not installed: make test EXTRAS=test,compilers")
