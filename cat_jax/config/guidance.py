"""The second objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cat_jax.errors import InputError

Form = Literal["hinge", "div", "div2", "nll", "mass_nll"]
Scope = Literal["mean", "layer", "head"]
Reduce = Literal["row", "sample"]
Schedule = Literal["exponential", "linear", "cosine", "constant"]

GuidanceForm = Callable[[Any, Any, Any], Any]
"""``form(mass, causal_count, visible_count)`` -> penalty of each row; see
``cat_jax.losses.attention_guidance_loss``."""
if TYPE_CHECKING:
    AnyForm = Form | GuidanceForm
else:  # a command line takes the names only
    AnyForm = Form


@dataclass(frozen=True)
class Guidance:
    """The second objective: loss = next-token loss + gamma(t) * guidance loss.

    Attributes:
        weight: Initial weight gamma.
        form: Form of the loss; see ``cat_jax.losses.attention_guidance_loss``, as for the next
            four. In Python also a function ``(mass, causal_count, visible_count) -> penalty``.
        scope: What must meet the constraint: the ``mean`` map, each ``layer`` or each ``head``.
        alpha: Ratio of causal to other attention from which a row costs nothing.
        reduce: Average over each ``row``, or over the rows of a ``sample`` first.
        layers: Constrained layers; None constrains all.
        schedule: Decay of gamma: ``exponential`` by epoch (CAT), ``linear`` or ``cosine`` to 0 at
            the last step, or ``constant``.
        rate: Decay rate of the exponential schedule, per epoch.
    """

    weight: float = 1.0
    form: AnyForm = "mass_nll"
    scope: Scope = "mean"
    alpha: float = 2.0
    reduce: Reduce = "row"
    layers: tuple[int, ...] | None = None
    schedule: Schedule = "constant"
    rate: float = 1.0

    def __post_init__(self):
        if not self.weight >= 0:  # NaN, too, is not
            raise InputError(f"guidance.weight must not be negative, got {self.weight}")


PUBLISHED = Guidance(weight=1.0, schedule="exponential", rate=1.0, form="hinge", alpha=2.0)
"""The guidance of CAT (Han et al., EMNLP 2025) as its code most likely ran."""
