"""Command lines: each module is run as ``python -m experiments.NAME``."""

import time

STARTED = time.perf_counter()
"""When the command began, before it imported anything."""
