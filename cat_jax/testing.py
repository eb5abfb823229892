"""Toys for tests of code that uses this package: models, tokenizer, records and a task.

They are small enough that a run takes seconds on a laptop, and need no file and no network.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from cat_jax.data.alignment import Example
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.models import CausalLM, LanguageModel, ModelConfig, init_params
from cat_jax.tasks.base import CUE_AGREES, CUE_DISAGREES, TRAIN, Intervention, Rule, Task

END, UNKNOWN, TURN_END = "<end>", "<unknown>", "<turn_end>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<turn_end>"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each printable ASCII character, and a chat template."""
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: n for n, token in enumerate([UNKNOWN, END, TURN_END, *characters])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[TURN_END],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def toy_model(seed: int = 0, **sizes: Any) -> LanguageModel:
    """Return a two-layer model with random weights and ``toy_tokenizer``.

    Args:
        seed: Seed of the weights.
        **sizes: Fields of ``ModelConfig`` to replace.
    """
    tokenizer = toy_tokenizer()
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "width": 16,
        "mlp_width": 24,
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 8,
    }
    model = CausalLM(ModelConfig(**fields | sizes))
    return LanguageModel(model, init_params(model, seed), tokenizer)


@dataclass(frozen=True, kw_only=True)
class ToyTask(Task):
    """Copy the digit of ``a``; ``b`` shows the same digit in training, any other out of it.

    Attributes:
        train_records: Records in the training set.
        test_records: Records in each of the two test sets, IID and OOD.
    """

    train_records: int = 64
    test_records: int = 16

    name: ClassVar[str] = "toy"

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return TRAIN, "iid", "ood"

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Draw the records of a split."""
        count = self.train_records if split == TRAIN else self.test_records
        return list(itertools.islice(_draw(split, seed), count))

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return "spurious", which redraws the digit of ``b``."""
        return {"spurious": lambda record, rng: _record(record.target, str(rng.integers(10)))}

    def spurious_spans(self, record: TrainingRecord) -> list[Span]:
        """Return where the record shows ``b``."""
        assert isinstance(record, Record)
        return [Span(record.input[4:7], 4)]

    def group(self, record: TrainingRecord) -> str | None:
        """Return whether ``b`` shows the right digit; None for conversations."""
        if not isinstance(record, Record):
            return None
        return CUE_AGREES if record.input[6] == record.target else CUE_DISAGREES

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the rule that reads ``a`` and the one that reads ``b``."""
        return {"oracle": lambda record: record.input[2], "shortcut": lambda r: r.input[6]}


def toy_records(split: str = TRAIN, count: int = 64, seed: int = 0) -> list[Record]:
    """Return records of ``ToyTask``, such as "a=3 b=3 a is " with the answer "3"."""
    return list(itertools.islice(_draw(split, seed), count))


def toy_dicts(split: str = TRAIN, count: int = 64, seed: int = 0) -> list[dict[str, Any]]:
    """Return the records of ``toy_records`` as a JSONL file would spell them."""
    return [
        {
            "input": record.input,
            "target": record.target,
            "important": [{record.target: [{"text": record.input[2], "start": 2}]}],
        }
        for record in toy_records(split, count, seed)
    ]


def toy_examples(count: int, length: int = 6, vocab_size: int = 13) -> list[Example]:
    """Return token sequences whose last token repeats the first, on which it depends."""
    rng = np.random.default_rng(0)
    positions = np.arange(length, dtype=np.int32)
    examples = []
    for _ in range(count):
        tokens = rng.integers(1, vocab_size, length).astype(np.int32)
        tokens[-1] = tokens[0]
        examples.append(
            Example(
                tokens=tokens,
                target_mask=positions == length - 1,
                q_bits=(positions == length - 2).astype(np.uint32)[:, None],
                k_bits=(positions == 0).astype(np.uint32)[:, None],
                causal_count=(positions == length - 2).astype(np.int32),
                visible_count=positions + 1,
            )
        )
    return examples


def raise_at(step: int, error: BaseException, kind: str = "train") -> Callable[[Any], None]:
    """Return a callback of ``fit`` that raises at a step, as a crash would."""

    def callback(line: Mapping[str, Any]) -> None:
        if line["kind"] == kind and line["step"] == step:
            raise error

    return callback


def _draw(split: str, seed: int) -> Iterator[Record]:
    rng = np.random.default_rng([seed, len(split), ord(split[0])])
    while True:
        a = str(rng.integers(10))
        yield _record(a, str(rng.integers(10)) if split == "ood" else a)


def _record(a: str, b: str) -> Record:
    return Record(f"a={a} b={b} a is ", a, (Annotation(Span(a, 13), (Span(a, 2),)),))
