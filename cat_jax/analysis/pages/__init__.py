"""Attention maps as a page of their own, for a browser without a network."""

from cat_jax.analysis.pages.page import attention_page, save_attention_page

__all__ = ["attention_page", "save_attention_page"]
