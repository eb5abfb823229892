"""Records as a model sees them in training: tokens, loss mask, effects and their causes."""

from cat_jax.analysis.records.show import ShownRecord, ShownRecords, show_records

__all__ = ["ShownRecord", "ShownRecords", "show_records"]
