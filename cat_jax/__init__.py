"""Causal attention tuning of language models in JAX.

Everything a user needs is here, imported when it is first used: importing ``cat_jax`` imports no
JAX. A complete run, on a toy model and in memory:

>>> import cat_jax as cat
>>> records = cat.read_records(cat.testing.toy_dicts(count=32))
>>> run = cat.fit(
...     cat.testing.toy_model(),
...     records,
...     guidance=cat.Guidance(),
...     train=cat.Training(steps=2, batch_size=8),
... )
>>> [(line["kind"], line["step"]) for line in run.history]
[('train', 2)]
>>> evaluation = cat.evaluate(run, cat.testing.ToyTask(test_records=4))
>>> list(evaluation), len(evaluation["ood"].answers), evaluation["iid"].mass.by_head_NH.shape
(['iid', 'ood'], 4, (2, 2))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cat_jax import (
        analysis,
        annotation,
        compare,
        config,
        data,
        distributed,
        evaluation,
        losses,
        models,
        sharding,
        tasks,
        testing,
        train,
    )
    from cat_jax.analysis import (
        AttentionMaps,
        attention_maps,
        attention_page,
        attention_rows,
        knock_out,
        patch_activations,
        propose_causes,
        read_attention,
        save_attention_page,
        show_records,
        trace_records,
        trace_spurious,
        twin_pairs,
    )
    from cat_jax.annotation import (
        AnswerCache,
        OpenAIClient,
        Prior,
        annotate,
        annotate_calculations,
        annotate_equation,
        annotate_patterns,
        read_prior,
        table_records,
    )
    from cat_jax.annotation.review import read_review_items, save_review
    from cat_jax.config import (
        PUBLISHED,
        AttentionDropout,
        Cell,
        Guidance,
        InputGradient,
        LoraConfig,
        MeshShape,
        Optimizer,
        Pretrained,
        PretrainedLora,
        RunConfig,
        Scratch,
        Training,
    )
    from cat_jax.data.alignment import Example, align_records
    from cat_jax.data.conversations import Conversation, Message
    from cat_jax.data.duplicates import find_duplicates
    from cat_jax.data.records import Annotation, Record, Span
    from cat_jax.data.shards import ShardedExamples, prepare_data
    from cat_jax.data.sources import read_records, write_records
    from cat_jax.errors import Diverged, InputError, Interrupted, SaveFailed
    from cat_jax.evaluation import (
        Evaluation,
        Sampling,
        answer_matches,
        chat_prompt,
        complete,
        evaluate,
        generate,
        steered_answers,
    )
    from cat_jax.losses import attention_guidance_loss
    from cat_jax.models import (
        CausalLM,
        LanguageModel,
        ModelConfig,
        Patch,
        activation_patches,
        attention_edits,
        convert_weights,
        dequantize_params,
        load_adapter,
        load_language_model,
        load_pretrained,
        merge_lora,
        quantize_params,
        read_activations,
        save_adapter,
        save_pretrained,
    )
    from cat_jax.tasks import Task
    from cat_jax.train.fit import fit
    from cat_jax.train.result import RunResult

_HOMES = {
    "analysis": (
        "AttentionMaps attention_maps attention_page attention_rows knock_out patch_activations "
        "propose_causes read_attention save_attention_page show_records trace_records "
        "trace_spurious twin_pairs"
    ),
    "annotation": (
        "AnswerCache OpenAIClient Prior annotate annotate_calculations annotate_equation "
        "annotate_patterns read_prior table_records"
    ),
    "annotation.review": "read_review_items save_review",
    "config": (
        "PUBLISHED AttentionDropout Cell Guidance InputGradient LoraConfig MeshShape Optimizer "
        "Pretrained PretrainedLora RunConfig Scratch Training"
    ),
    "data.alignment": "Example align_records",
    "data.conversations": "Conversation Message",
    "data.duplicates": "find_duplicates",
    "data.records": "Annotation Record Span",
    "data.shards": "ShardedExamples prepare_data",
    "data.sources": "read_records write_records",
    "errors": "Diverged InputError Interrupted SaveFailed",
    "evaluation": (
        "Evaluation Sampling answer_matches chat_prompt complete evaluate generate steered_answers"
    ),
    "losses": "attention_guidance_loss",
    "models": (
        "CausalLM LanguageModel ModelConfig Patch activation_patches attention_edits "
        "convert_weights dequantize_params load_adapter load_language_model load_pretrained "
        "merge_lora quantize_params read_activations save_adapter save_pretrained"
    ),
    "tasks": "Task",
    "train.fit": "fit",
    "train.result": "RunResult",
}
_HOME_OF = {name: f"cat_jax.{home}" for home, names in _HOMES.items() for name in names.split()}
_MODULES = (
    "analysis",
    "annotation",
    "compare",
    "config",
    "data",
    "distributed",
    "evaluation",
    "losses",
    "models",
    "sharding",
    "tasks",
    "testing",
    "train",
)

__all__ = [
    *sorted(_HOME_OF),
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _MODULES:
        return import_module(f"cat_jax.{name}")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'cat_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
