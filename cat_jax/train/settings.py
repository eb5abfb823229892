"""Settings of a run that must agree with its model."""

from jax.sharding import Mesh

from cat_jax.config import Guidance, Training
from cat_jax.errors import InputError
from cat_jax.models import CausalLM
from cat_jax.sharding import HEAD_AXES, SEQUENCE_AXES
from pallas_kernels import Partition


def check_settings(
    train: Training,
    guidance: Guidance | None,
    model: CausalLM,
    mesh: Mesh,
) -> None:
    """Refuse settings that the model cannot honour.

    Raises:
        InputError: Sequences longer than the model's positions, layers that it does not have, or
            heads that do not divide among the devices.
    """
    devices = Partition(mesh).devices(HEAD_AXES + SEQUENCE_AXES)
    if model.config.num_heads % devices:
        raise InputError(
            f"train.mesh.tensor x train.mesh.context is {devices}, which does not divide the "
            f"{model.config.num_heads} heads of the model; choose a divisor"
        )
    if train.max_length > model.config.max_positions:
        raise InputError(
            f"train.max_length is {train.max_length}, but the model reads at most "
            f"{model.config.max_positions} tokens; lower it"
        )
    layers = () if guidance is None else guidance.layers or ()
    wrong = [n for n in layers if n >= model.config.num_layers]
    if wrong:
        raise InputError(
            f"guidance.layers names layer {wrong[0]}, but the model has layers 0 to "
            f"{model.config.num_layers - 1}"
        )
