import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for browser.py

from browser import open_browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def driver(folder):
    browser = open_browser(folder)
    yield browser
    browser.quit()
