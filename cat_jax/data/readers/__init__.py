"""Items of data sets, with their places: files, folders, ``datasets``, names on a hub.

An item is a mapping of fields, which ``cat_jax.data.formats`` makes a record. Items come one at a
time: of a large file only a part is in memory.
"""

from cat_jax.data.readers.open import ENDINGS, open_items, source_name

__all__ = ["ENDINGS", "open_items", "source_name"]
