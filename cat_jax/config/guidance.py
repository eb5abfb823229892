"""The second objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cat_jax.errors import SettingError
from cat_jax.ranges import Range, check_ranges

Form = Literal["hinge", "div", "div2", "nll", "mass_nll"]
THRESHOLD_FORMS: tuple[Form, ...] = ("hinge", "div", "div2", "nll")
"""Forms to which ``alpha`` applies."""
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

    weight: Annotated[float, Range(ge=0, le=10**6)] = 1.0
    form: AnyForm = "mass_nll"
    scope: Scope = "mean"
    alpha: Annotated[float, Range(ge=0, le=10**9)] = 2.0
    reduce: Reduce = "row"
    layers: tuple[Annotated[int, Range(ge=0, lt=10_000)], ...] | None = None
    schedule: Schedule = "constant"
    rate: Annotated[float, Range(ge=0, le=10**6)] = 1.0

    def __post_init__(self):
        check_ranges(self, "guidance")
        if self.alpha == 0 and self.form in THRESHOLD_FORMS:
            raise SettingError(
                "guidance.alpha", f"is 0, with which the form {self.form} costs nothing anywhere"
            )
        if self.layers is not None and not self.layers:
            raise SettingError("guidance.layers", "names no layer; leave it out to constrain all")


PUBLISHED = Guidance(weight=1.0, schedule="exponential", rate=1.0, form="hinge", alpha=2.0)
"""The guidance of CAT (Han et al., EMNLP 2025) as its code most likely ran."""
