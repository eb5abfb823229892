"""One test record on which the methods differ, and what each method's answer attends to."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from cat_jax.analysis import attention_maps
from cat_jax.analysis.interventions import marked_tokens
from cat_jax.data.records import Record
from cat_jax.evaluation.answers import answer_range
from cat_jax.evaluation.testsets import TestSet
from cat_jax.models.language_model import LanguageModel
from cat_jax.tasks.base import Task

CANDIDATES = 8
"""Records whose attention is kept until all methods have answered: parameters are not."""


@dataclass
class AttentionExample:
    """Attention of the query that predicts the answer, for some records and every method.

    Attributes:
        task: Task of the records.
        test: Test set they are from.
        tokenizer: Tokenizer of the models.
        right: By method, whether each record was answered rightly.
        attention: By method and record, attention averaged over layers and heads, [T].
    """

    task: Task
    test: TestSet
    tokenizer: PreTrainedTokenizerBase
    right: dict[str, np.ndarray] = field(default_factory=dict)
    attention: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def add(self, title: str, run: LanguageModel, right: np.ndarray) -> None:
        """Add a method; candidates are the first records that the first method answers wrongly."""
        self.right[title] = right
        candidates = self._candidates()
        length = max(self._query(n) for n in candidates) + 1
        self.attention[title] = {n: self._attention(run, n, length) for n in candidates}

    def chosen(self) -> int:
        """Return the first candidate that the last method answers rightly, else the first."""
        last = list(self.right.values())[-1]
        return next((n for n in self._candidates() if last[n]), self._candidates()[0])

    def tokens(self) -> list[str]:
        """Return the chosen record's tokens up to the query that predicts the answer."""
        n = self.chosen()
        ids = self.test.examples[n].tokens[: self._query(n) + 1]
        return [str(self.tokenizer.decode([token])) for token in ids]

    def target(self) -> str:
        """Return the chosen record's right answer."""
        return self.test.targets[self.chosen()]

    def marked(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the tokens are causal and which spurious, bool [T]."""
        n = self.chosen()
        length = self._query(n) + 1
        causal = np.asarray(self.test.examples[n].k_bits.any(-1))[:length]
        return causal, self._spurious(n)[:length] & ~causal

    def _candidates(self) -> list[int]:
        first = next(iter(self.right.values()))
        wrong = np.flatnonzero(~first)[:CANDIDATES]
        found = wrong if len(wrong) else np.arange(min(CANDIDATES, len(first)))
        return [int(n) for n in found]

    def _query(self, n: int) -> int:
        return answer_range(self.test.examples[n]).start - 1

    def _attention(self, run: LanguageModel, n: int, length: int) -> np.ndarray:
        """Pad to one length, for one compilation: no query looks at what follows it."""
        query = self._query(n)
        ids = np.zeros((1, length), np.int32)
        ids[0, : query + 1] = self.test.examples[n].tokens[: query + 1]
        maps_NBHQK = attention_maps(run.model, run.params, jnp.asarray(ids))
        return np.asarray(maps_NBHQK[:, 0, :, query].mean((0, 1)))[: query + 1]

    def _spurious(self, n: int) -> np.ndarray:
        record = self.test.records[n]
        if not isinstance(record, Record):
            return np.zeros(len(self.test.examples[n].tokens), bool)
        return marked_tokens(self.tokenizer, record, self.task.spurious_spans(record))
