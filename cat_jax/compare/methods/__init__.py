"""The methods that a comparison knows, by name."""

from cat_jax.compare.methods.attention_dropout import ATTENTION_DROPOUT
from cat_jax.compare.methods.balanced import BALANCED
from cat_jax.compare.methods.base import Method
from cat_jax.compare.methods.baseline import BASELINE
from cat_jax.compare.methods.cat import CAT
from cat_jax.compare.methods.cat_published import CAT_PUBLISHED
from cat_jax.compare.methods.cat_published_div import CAT_PUBLISHED_DIV
from cat_jax.compare.methods.causes_only import CAUSES_ONLY
from cat_jax.compare.methods.counterfactual import COUNTERFACTUAL
from cat_jax.compare.methods.few_shot import FEW_SHOT
from cat_jax.compare.methods.group_reweighting import GROUP_REWEIGHTING
from cat_jax.compare.methods.input_gradient import INPUT_GRADIENT
from cat_jax.compare.methods.masked_spurious import MASKED_SPURIOUS
from cat_jax.compare.methods.named_causes import NAMED_CAUSES
from cat_jax.compare.methods.random_spans import RANDOM_SPANS
from cat_jax.compare.methods.shuffled_causes import SHUFFLED_CAUSES
from cat_jax.compare.methods.spoiled_annotations import CAT_ANNOTATED, CAT_MISSING, CAT_WRONG
from cat_jax.compare.methods.spurious_spans import SPURIOUS_SPANS
from cat_jax.compare.methods.untuned import UNTUNED
from cat_jax.compare.methods.wrong_prior import WRONG_PRIOR
from cat_jax.errors import InputError, name_hint

_ALL = (
    BASELINE,
    CAT,
    CAT_PUBLISHED,
    CAT_PUBLISHED_DIV,
    RANDOM_SPANS,
    SHUFFLED_CAUSES,
    SPURIOUS_SPANS,
    WRONG_PRIOR,
    COUNTERFACTUAL,
    MASKED_SPURIOUS,
    CAUSES_ONLY,
    BALANCED,
    GROUP_REWEIGHTING,
    NAMED_CAUSES,
    ATTENTION_DROPOUT,
    INPUT_GRADIENT,
    UNTUNED,
    FEW_SHOT,
    *CAT_ANNOTATED,
    *CAT_MISSING,
    *CAT_WRONG,
)
METHODS = {method.name: method for method in _ALL}

__all__ = ["METHODS", "Method", "find_method"]


def find_method(method: str | Method) -> Method:
    """Return a method by its name; a ``Method`` is itself.

    Raises:
        InputError: No such method; the nearest name is suggested.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise InputError(f"no method named {method!r}; {name_hint(method, METHODS)}")
    return METHODS[method]
