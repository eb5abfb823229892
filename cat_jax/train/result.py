"""What a run gives: a trained model, its history and a summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from statistics import median
from typing import Any

from etils import epath

from cat_jax.config import Dtype, Training
from cat_jax.data.alignment import AlignmentStats
from cat_jax.models import LoraConfig
from cat_jax.models.language_model import LanguageModel
from cat_jax.train.evaluations import verdict
from cat_jax.train.export import ADAPTER, MODEL, export_model
from cat_jax.train.metrics import Line
from pallas_kernels import Selection

SUMMARIZED = (
    "step",
    "next_token_loss",
    "token_accuracy",
    "perplexity",
    "causal_mass",
)


@dataclass(frozen=True, eq=False)
class RunResult(LanguageModel):
    """A trained model; everything that takes a ``LanguageModel`` takes it.

    Attributes:
        history: One dict for each log line, oldest first, never empty: ``kind`` ("train" or
            "eval"), ``step``, and metrics by name. It includes what a resumed run logged before.
        train: Settings of the loop.
        attention: Attention implementation, and why it was selected.
        stats: What the alignment of the training records found.
        adapters: Trained adapters; None where all parameters were trained.
        lora: Form of the adapters.
        base_name: Folder or hub name of the pretrained model; None for others.
    """

    history: list[Line]
    train: Training
    attention: Selection
    stats: AlignmentStats
    adapters: Any = None
    lora: LoraConfig | None = None
    base_name: str | None = None

    def _repr_html_(self) -> str:
        from cat_jax.train.run_html import run_html

        return run_html(self)

    @property
    def selected(self) -> str | None:
        """Which step was selected and why; None if it is the last."""
        return verdict(self.history, self.train)

    @property
    def export_name(self) -> str:
        """Name of the exported folder in a workdir: "model" or "adapter"."""
        return MODEL if self.adapters is None else ADAPTER

    def summary(self) -> dict[str, Any]:
        """Return steps, seconds, throughput and validation of the run, as JSON values."""
        return summarize(self.history) | ({"chosen": self.selected} if self.selected else {})

    def save_pretrained(
        self, folder: str | PathLike[str], *, dtype: Dtype | None = None
    ) -> epath.Path:
        """Write the model for transformers or, for adapters, the adapter for PEFT.

        Args:
            folder: Folder to write; must not exist.
            dtype: Dtype of the weights; None takes the pretrained model's, and float32 for models
                from scratch and adapters.

        Raises:
            InputError: The folder exists, or parameters are not finite.
        """
        return export_model(
            folder,
            self.model.config,
            self.params if self.adapters is None else self.adapters,
            self.tokenizer,
            lora=self.lora,
            base_name=self.base_name,
            end_ids=self.end_ids,
            dtype=dtype,
        )


def summarize(history: Sequence[Line]) -> dict[str, Any]:
    """Summarise the lines of a run, so that a resumed run counts as a whole."""
    train = [line for line in history if line["kind"] == "train"]
    summary: dict[str, Any] = {
        "steps": history[-1]["step"],
        "seconds": round(max(line.get("elapsed_seconds", 0.0) for line in history), 1),
        "seconds_per_step": median(line["seconds_per_step"] for line in train),
        "tokens_per_second": round(median(line["tokens_per_second"] for line in train)),
    }
    points = [
        {name: line[name] for name in SUMMARIZED if name in line}
        for line in history
        if line["kind"] == "eval" and "next_token_loss" in line
    ]
    if points:
        summary["validation"] = {
            "first": points[0],
            "best": min(points[1:] or points, key=lambda point: point["next_token_loss"]),
            "last": points[-1],
        }
    return summary
