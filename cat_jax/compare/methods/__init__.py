"""The methods that a comparison knows, by name."""

import difflib

from cat_jax.compare.methods.base import Method
from cat_jax.compare.methods.baseline import BASELINE
from cat_jax.compare.methods.cat import CAT
from cat_jax.compare.methods.cat_published import CAT_PUBLISHED
from cat_jax.errors import InputError

METHODS = {method.name: method for method in (BASELINE, CAT, CAT_PUBLISHED)}

__all__ = ["METHODS", "Method", "find_method"]


def find_method(method: str | Method) -> Method:
    """Return a method by its name; a ``Method`` is itself.

    Raises:
        InputError: No such method; the nearest name is suggested.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METHODS)}"
        raise InputError(f"no method named {method!r}; {hint}")
    return METHODS[method]
