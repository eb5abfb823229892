"""Causal attention tuning of language models in JAX."""
