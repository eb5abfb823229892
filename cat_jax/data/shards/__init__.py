"""Aligned examples on disk: written once, read record by record, in memory that does not grow."""

from cat_jax.data.shards.examples import ShardedExamples, is_prepared
from cat_jax.data.shards.manifest import Manifest
from cat_jax.data.shards.prepare import prepare_data

__all__ = ["Manifest", "ShardedExamples", "is_prepared", "prepare_data"]
