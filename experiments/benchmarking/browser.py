"""Headless Chromium, for pages that must load nothing."""

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from cat_jax.errors import InputError

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1280,900", "--lang=en"),
)
OWN = ("file:", "data:", "about:", "chrome", "blob:")
"""Addresses that lie on this machine."""


def open_browser(folder: Path) -> Any:
    """Return a driver of selenium whose downloads go to ``folder``.

    Raises:
        InputError: Chromium or its driver is not installed.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise InputError("no chromium and chromedriver (apt-get install chromium chromium-driver)")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return Chrome(options, Service(driver, popen_kw={"start_new_session": True}))


def end(driver: Any) -> None:
    """End a browser that may no longer answer, with all of its processes."""
    with suppress(ProcessLookupError):
        os.killpg(driver.service.process.pid, signal.SIGKILL)
    driver.service.process.wait()


def requested(driver: Any) -> list[str]:
    """Return the addresses that the page asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def requested_elsewhere(driver: Any) -> list[str]:
    """Return those of other machines."""
    return [url for url in requested(driver) if not url.startswith(OWN)]
