"""Benchmark tasks: records by split, answers, interventions and reference rules."""
