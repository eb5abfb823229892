"""What a cell of a sweep needs, where it trains a public model: in closed form, nothing is run."""

from dataclasses import replace
from functools import cache

from cat_jax.config import Cell, Pretrained, PretrainedLora
from cat_jax.models import ModelConfig
from experiments.planning.costs import memory_parts, model_flops, parameter_counts
from experiments.planning.job import Job, Layout
from experiments.planning.public_models import PUBLIC_MODELS, find_model

GB = 10**9
PETA = 10**15


def planned_costs(cell: Cell) -> list[str] | None:
    """Return parameters, memory of one device in GB, and PFLOP of the steps; None if unknown.

    All positions are taken for tokens, so that both are upper bounds. Models whose name
    begins with that of a public one are as large.
    """
    run, model = cell.run, cell.run.model
    if not isinstance(model, Pretrained):
        return None
    known = [name for name in PUBLIC_MODELS if model.name.rpartition("/")[2].startswith(name)]
    if not known:
        return None
    name = max(known, key=len)
    is_lora = isinstance(model, PretrainedLora)
    frozen = model.frozen_dtype if isinstance(model, PretrainedLora) else None
    job = Job(
        name=name,
        model=_config(name, model),
        tuned="lora" if is_lora else "all",
        length=run.train.max_length,
        sequences=run.train.batch_size,
        logits_mib=run.train.logits_mib,
        optimizer=run.optimizer,
        frozen_dtype=frozen or model.dtype,
    )
    layout = Layout(1, 1, 1, accumulate=run.train.accumulate)
    memory = sum(memory_parts(job, layout).values())
    parameters = f"{parameter_counts(job).total / 10**9:.2f} B"
    steps = _steps(cell)
    flops = "–" if steps is None else f"{steps * model_flops(job) / PETA:,.1f}"
    return [parameters, f"{memory / GB:.1f}", flops]


def _config(name: str, model: Pretrained) -> ModelConfig:
    return replace(_public(name), remat=model.remat, dtype=model.dtype)


@cache
def _public(name: str) -> ModelConfig:
    return find_model(name)


def _steps(cell: Cell) -> int | None:
    """Return the steps; None where they follow from data that is not read here."""
    return None if cell.run.train.epochs is not None else cell.run.train.steps
