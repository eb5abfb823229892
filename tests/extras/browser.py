"""Headless Chromium; tests skip where there is none."""

import os
from pathlib import Path

import pytest

from cat_jax.errors import InputError
from experiments.benchmarking import browser


def open_browser(folder: Path):
    """Return a driver whose downloads go to ``folder``; skip where there is no Chromium."""
    try:
        return browser.open_browser(folder)
    except InputError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true but there is {error}")
        pytest.skip(str(error))


def severe_errors(driver):
    """Return what the browser's console says of errors since the last call."""
    return [x["message"] for x in driver.get_log("browser") if x["level"] == "SEVERE"]
