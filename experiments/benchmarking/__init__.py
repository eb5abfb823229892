"""Benchmarks of the train step and of the guidance loss."""
