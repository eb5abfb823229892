"""What else training may do with annotations than guide attention: rivals of the guidance."""

from dataclasses import dataclass
from typing import Annotated

from cat_jax.ranges import Range, check_ranges


@dataclass(frozen=True)
class InputGradient:
    """A penalty on what the answer's loss owes to unannotated words: right for the right reasons.

    Source: Ross et al., "Right for the right reasons: training differentiable models by
    constraining their explanations" (IJCAI 2017, eq. 1). See
    ``cat_jax.losses.input_gradient``.

    Attributes:
        weight: Weight of the penalty, in units of squared embeddings: at the default it begins
            near the next-token loss for embeddings of usual size.
    """

    weight: Annotated[float, Range(ge=0, le=10**9)] = 1e-3

    def __post_init__(self):
        check_ranges(self, "regularizer")


@dataclass(frozen=True)
class AttentionDropout:
    """Dropout of unannotated keys: while training, annotated queries do not see some of them.

    Inference sees all keys. See ``cat_jax.losses.attention_dropout``.

    Attributes:
        rate: Share of the unannotated keys that are hidden, drawn anew in every step.
    """

    rate: Annotated[float, Range(ge=0, le=1)] = 0.5

    def __post_init__(self):
        check_ranges(self, "regularizer")


Regularizer = InputGradient | AttentionDropout
