"""Activation patching between records and their intervened twins.

The twin of a record is the same text with, say, its spurious values redrawn. Activations of the
record are put in place in a pass over the twin; where that brings back the answer's probability,
what the twin lacks was carried.

Sources: Vig et al. 2020 (arXiv 2004.12265), Meng et al. 2022 (arXiv 2202.05262), Wang et al. 2022
(arXiv 2211.00593).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.analysis.interventions.marks import (
    KINDS,
    Kind,
    MarkedExample,
    TracedRecords,
    trace_records,
)
from cat_jax.analysis.interventions.scores import AnswerScores, Pick, join, score_traced
from cat_jax.data.alignment import Example
from cat_jax.data.batches import Batch, most_targets
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.errors import InputError, name_hint
from cat_jax.evaluation.likelihood import AnswerScore, batches, score_answers
from cat_jax.models import (
    CausalLM,
    LanguageModel,
    Patch,
    activation_patches,
    read_activations,
)
from cat_jax.sharding import replicate
from cat_jax.tasks.base import Task

Site = Literal["residual", "heads"]


@dataclass(frozen=True)
class TwinPairs:
    """Records and their twins, both with the record's answer and its alternative.

    Attributes:
        clean: The records, [R].
        corrupted: Their twins, token by token of the same kinds.
        left_out: Pairs of another length or other places, which cannot be patched.
    """

    clean: TracedRecords
    corrupted: TracedRecords
    left_out: int


@dataclass(frozen=True)
class Patching:
    """Scores of R twins with activations of their records in place.

    Attributes:
        site: What was patched.
        columns: Kinds of tokens, or heads by number.
        clean: Scores of the records, [R].
        corrupted: Of their twins, [R].
        patched: Of the twins with a patch in one layer, [N, len(columns), R].
    """

    site: Site
    columns: tuple[str, ...]
    clean: AnswerScores
    corrupted: AnswerScores
    patched: AnswerScores

    @property
    def normalized(self) -> np.ndarray:
        """Return how much of the preference comes back, by pair, [N, len(columns), R].

        (patched - corrupted) / (clean - corrupted): 0 for nothing, 1 for all. NaN where clean and
        corrupted are equal.
        """
        moved, whole_R = self._moves()
        whole = np.broadcast_to(whole_R, moved.shape)
        return np.divide(moved, whole, out=np.full(moved.shape, np.nan), where=whole != 0)

    @property
    def restored(self) -> np.ndarray:
        """Return the same for all pairs together, [N, len(columns)].

        The ratio of the means over pairs, so that pairs that hardly differ do not dominate; NaN
        where the means of clean and corrupted are equal.
        """
        moved, whole_R = self._moves()
        whole = whole_R.mean()
        return moved.mean(-1) / whole if whole else np.full(moved.shape[:-1], np.nan)

    def _moves(self) -> tuple[np.ndarray, np.ndarray]:
        corrupted_R = self.corrupted.preference
        return self.patched.preference - corrupted_R, self.clean.preference - corrupted_R


def twin_pairs(
    model: LanguageModel,
    task: Task,
    records: Sequence[TrainingRecord],
    *,
    intervention: str = "spurious",
    alternatives: Sequence[str | None] | None = None,
    seed: int = 0,
) -> TwinPairs:
    """Make the twin of each record and keep the pairs whose tokens correspond.

    Args:
        model: Whose tokenizer.
        task: Whose interventions and spurious words.
        records: Prompts and answers.
        intervention: Which of the task's interventions makes the twin.
        alternatives: Wrong answers as in ``trace_records``; a twin whose right answer is another
            has that one for an alternative.
        seed: Seed of the intervention.

    Raises:
        InputError: The task has no such intervention, no pair is left, or as ``trace_records``.
    """
    if intervention not in task.interventions:
        raise InputError(
            f"task {task.name} has no intervention {intervention!r}; "
            f"{name_hint(intervention, task.interventions)}"
        )
    rng, twins = np.random.default_rng(seed), []
    given: list[str | None] = [*(alternatives or [None] * len(records))]
    for n, record in enumerate(records):
        if isinstance(record, Record):
            twin = task.interventions[intervention](record, rng)
            if twin.target != record.target:
                given[n] = twin.target
            twins.append(_with_target(twin, record.target))
    clean = trace_records(model, task, records, given)
    corrupted = trace_records(model, task, twins, given)
    kept = [
        n
        for n in range(len(clean))
        if np.array_equal(clean.right[n].kinds, corrupted.right[n].kinds)
    ]
    if not kept:
        raise InputError(
            f"no twin by {intervention!r} has the tokens of its record at the same places, so that "
            "none can be patched; redraw words of as many tokens"
        )
    pairs = (
        TracedRecords([x.right[n] for n in kept], [x.rivals[n] for n in kept])
        for x in (clean, corrupted)
    )
    return TwinPairs(*pairs, left_out=len(clean) - len(kept))


def _with_target(record: Record, target: str) -> Record:
    """Return a record with another answer, on which nothing depends any more if it is another."""
    if record.target == target:
        return record
    notes = tuple(
        replace(note, effect=replace(note.effect, text=target))
        for note in record.important
        if note.effect.text == record.target
    )
    return Record(record.input, target, notes)


def patch_activations(
    model: LanguageModel,
    pairs: TwinPairs,
    site: Site = "residual",
    *,
    positions: Sequence[Kind] = KINDS,
    batch_size: int = 32,
) -> Patching:
    """Patch activations of the records into their twins, layer by layer.

    Args:
        model: The model.
        pairs: From ``twin_pairs``.
        site: "residual" replaces the residual stream after a layer at the tokens of one kind;
            "heads" the output of one head at the tokens of all ``positions``.
        positions: Kinds of tokens.
        batch_size: Pairs that are computed at a time.

    Raises:
        InputError: No such site or positions.
    """
    if site not in get_args(Site):
        raise InputError(f"site must be one of {', '.join(get_args(Site))}, not {site!r}")
    if unknown := [kind for kind in positions if kind not in KINDS]:
        raise InputError(f"positions: {unknown[0]!r} is no kind; {name_hint(unknown[0], KINDS)}")
    layers, heads = model.model.config.num_layers, model.model.config.num_heads
    columns = tuple(positions) if site == "residual" else tuple(map(str, range(heads)))
    spots = _spots(layers, heads, positions, site)

    def measure(pick: Pick) -> AnswerScore:
        sides = [[_bits_of_kinds(x) for x in pick(side)] for side in (pairs.clean, pairs.corrupted)]
        most = most_targets(sides[0])
        parts = (
            _patched(model.model, model.params, source, target, spots, most, site)
            for source, target in zip(*(batches(x, batch_size) for x in sides), strict=True)
        )
        return join(parts, len(sides[0]))

    scores = score_traced(pairs.clean, measure)
    patched = scores[2:].reshape(layers, len(columns))
    return Patching(site, columns, clean=scores[0], corrupted=scores[1], patched=patched)


class Spots(NamedTuple):
    """Where to patch, one after the other.

    Attributes:
        layers_EN: In which layers, bool.
        bits_E: At which kinds of tokens, one bit each, uint32.
        heads_EH: In which heads, bool.
    """

    layers_EN: Any
    bits_E: Any
    heads_EH: Any


def _spots(layers: int, heads: int, positions: Sequence[Kind], site: Site) -> Spots:
    bits = np.array([1 << KINDS.index(kind) for kind in positions], np.uint32)
    if site == "residual":
        in_heads, at = np.ones((len(bits), heads), bool), bits
    else:
        in_heads, at = np.eye(heads, dtype=bool), np.full(heads, bits.sum(dtype=np.uint32))
    return Spots(
        np.repeat(np.eye(layers, dtype=bool), len(at), 0),
        np.tile(at, layers),
        np.tile(in_heads, (layers, 1)),
    )


def _bits_of_kinds(marked: MarkedExample) -> Example:
    """Return the example with the kind of each token as a bit, and none at the last token."""
    bits = np.where(marked.kinds >= 0, 1 << np.maximum(marked.kinds, 0), 0)
    return replace(marked.example, q_bits=bits.astype(np.uint32)[:, None])


@partial(jax.jit, static_argnums=(0, 5, 6))
def _patched(
    model: CausalLM, params: Any, source: Batch, target: Batch, spots: Spots, most: int, site: Site
) -> AnswerScore:
    """Score the source, the target, and the target with each patch: [2 + E, B]."""
    taken = read_activations(model, params, source.tokens_BT)

    def one(spot: Spots) -> AnswerScore:
        at_BT = (target.q_bits_BTW[..., 0] & spot.bits_E) != 0
        where_NBT = spot.layers_EN[:, None, None] & at_BT[None]
        if site == "residual":
            patches = activation_patches(residual=Patch(where_NBT, taken.residual_NBTD))
        else:
            where_NBTH = where_NBT[..., None] & spot.heads_EH[None, None, None]
            patches = activation_patches(heads=Patch(where_NBTH, taken.heads_NBTHC))
        return score_answers(model, params, target, most, patches)

    ends = [score_answers(model, params, batch, most) for batch in (source, target)]
    scores = jax.lax.map(one, spots)
    return jax.tree.map(
        lambda a, b, rest: replicate(jnp.concatenate([a[None], b[None], rest]), model.partition),
        *ends,
        scores,
    )
