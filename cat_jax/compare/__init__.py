"""Comparison of methods over seeds, on the same records, and its report."""

from cat_jax.compare.compare import compare
from cat_jax.compare.comparison import Comparison, MethodRun
from cat_jax.compare.methods import METHODS, Method
from cat_jax.compare.report import save_report, summarize

__all__ = ["METHODS", "Comparison", "Method", "MethodRun", "compare", "save_report", "summarize"]
