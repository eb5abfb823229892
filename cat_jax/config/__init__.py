"""What a training run is: frozen dataclasses, no field that nothing reads.

Importing this package imports no JAX, so that command lines answer at once.
"""

from cat_jax.config.cell import Cell, method_cells
from cat_jax.config.guidance import (
    PUBLISHED,
    AnyForm,
    Form,
    Guidance,
    GuidanceForm,
    Reduce,
    Schedule,
    Scope,
)
from cat_jax.config.model import (
    Attention,
    Dtype,
    FrozenDtype,
    LoraConfig,
    LoraTarget,
    ModelSource,
    ParamDtype,
    Pretrained,
    PretrainedLora,
    Remat,
    Scratch,
)
from cat_jax.config.regularizer import AttentionDropout, InputGradient, Regularizer
from cat_jax.config.run import RunConfig
from cat_jax.config.training import MESH_AXES, MeshShape, Optimizer, OptimizerName, Training

__all__ = [
    "MESH_AXES",
    "PUBLISHED",
    "AnyForm",
    "Attention",
    "AttentionDropout",
    "Cell",
    "Dtype",
    "Form",
    "FrozenDtype",
    "Guidance",
    "GuidanceForm",
    "InputGradient",
    "LoraConfig",
    "LoraTarget",
    "MeshShape",
    "ModelSource",
    "Optimizer",
    "OptimizerName",
    "ParamDtype",
    "Pretrained",
    "PretrainedLora",
    "Reduce",
    "Regularizer",
    "Remat",
    "RunConfig",
    "Schedule",
    "Scope",
    "Scratch",
    "Training",
    "method_cells",
]
