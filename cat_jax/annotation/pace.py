"""The pace of requests that a server allows."""

import re
import time
from collections.abc import Mapping
from threading import Lock

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class Pace:
    """Spaces requests of several threads.

    Args:
        requests_per_minute: Most requests to start in a minute; None knows no limit but what
            ``follow`` is told.
    """

    def __init__(self, requests_per_minute: float | None = None):
        self._gap = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._next = 0.0
        self._lock = Lock()

    def wait(self) -> None:
        """Wait for the turn of the next request."""
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._gap
        time.sleep(max(0.0, start - time.monotonic()))

    def follow(self, headers: Mapping[str, str]) -> None:
        """Hold the next requests back where a reply's headers say that nothing is left for now.

        Args:
            headers: Of a reply: ``x-ratelimit-remaining-requests``, ``x-ratelimit-reset-requests``
                and the same of tokens, as hosted OpenAI-compatible servers send them.
        """
        for what in ("requests", "tokens"):
            left = headers.get(f"x-ratelimit-remaining-{what}", "")
            reset = headers.get(f"x-ratelimit-reset-{what}", "")
            if left.strip() == "0" and reset:
                with self._lock:
                    self._next = max(self._next, time.monotonic() + seconds(reset))


def seconds(text: str) -> float:
    """Return a time such as "6m0s", "20ms" or "1.5" in seconds; 0 for what is none."""
    parts = PART.findall(text)
    if parts:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
