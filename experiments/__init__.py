"""Command lines: each module is run as ``python -m experiments.NAME``."""
