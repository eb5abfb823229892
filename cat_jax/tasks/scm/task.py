"""The task: settings of a kind of causal model, one drawn model of that kind, its records."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Annotated, ClassVar, Literal, cast

import numpy as np

from cat_jax.data.records import Record
from cat_jax.errors import InputError, SettingError
from cat_jax.ranges import Range, Seed
from cat_jax.tasks.base import TRAIN
from cat_jax.tasks.causal_model import CausalModel, Factor, Values
from cat_jax.tasks.game import CausalGame
from cat_jax.tasks.linear_rules import LinearFit
from cat_jax.tasks.measures import number_measures
from cat_jax.tasks.rules import majority_rule, score_rule
from cat_jax.tasks.scm.answers import HIDDEN, Form, Label, make_answer
from cat_jax.tasks.scm.models import (
    OUTCOMES,
    Drawn,
    Shift,
    Sizes,
    draw_factors,
    guess_parents,
    sample_values,
    shifted,
)
from cat_jax.tasks.scm.texts import WORDINGS, Wording, WordingName, question
from cat_jax.tasks.streams import random_stream
from cat_jax.tasks.wording import ANSWER, annotated_record, replace_values

Few = Annotated[int, Range(ge=0, le=6)]
Strength = Annotated[float, Range(ge=0, le=1)]

MARGIN = 0.1
"""How much better the oracle must be out of distribution than rules that read no cause."""
TEMPTATION = 0.05
"""How much better than the most frequent answer the spurious factors must be in distribution."""
CHECKED_RECORDS = 500


@dataclass(frozen=True, kw_only=True)
class SCM(CausalGame):
    """Records drawn from a random structural causal model.

    The generality that the Spurious Token Game lacks (Han et al., EMNLP 2025, Limitations). A
    model is refused on which the spurious factors are of no use in distribution (unless
    ``strength`` is 0), or rules that read no cause nearly as right as the oracle out of it.

    Attributes:
        model_seed: Which model of this kind; the seed of a run draws records of it.
        causes: Causes of the answer, 1 to 6.
        twins: Factors that copy a cause in training.
        distractors: Factors without influence.
        mediators: Factors through which alone as many of the causes reach the answer.
        confounders: Factors that a cause and a twin both follow.
        colliders: Factors that add up a cause and a distractor.
        mechanism: Form of the answer's mechanism.
        noise: Noise of the answer, as a share of the standard deviation of its score.
        strength: How often a twin copies in training, from 0 (never) to 1; one, or one per twin.
        order: Factors stand in an order of the model (``fixed``), or of each record.
        wording: Form of the text.
        label: What the answer is: one of two, one of several ``classes``, or a number.
        classes: Number of classes, 3 to 5, where the label is ``classes``.
        paths: Annotate whatever has a directed path to the answer, not its parents alone.
        shifts: Test sets out of distribution (docs/tasks.md).
    """

    model_seed: Seed = 0
    causes: Annotated[int, Range(ge=1, le=6)] = 3
    twins: Few = 3
    distractors: Few = 2
    mediators: Few = 0
    confounders: Few = 0
    colliders: Few = 0
    mechanism: Form = "linear"
    noise: Annotated[float, Range(ge=0, le=1)] = 0.0
    strength: Strength | tuple[Strength, ...] = 1.0
    order: Literal["shuffled", "fixed"] = "shuffled"
    wording: WordingName = "list"
    label: Label = "binary"
    classes: Annotated[int, Range(ge=3, le=5)] = 3
    paths: bool = False
    shifts: tuple[Shift, ...] = ("ood",)

    name: ClassVar[str] = "scm"

    def __post_init__(self):
        super().__post_init__()
        per_twin = self.strength if isinstance(self.strength, tuple) else ()
        problems = (
            (
                not self.twins + self.colliders,
                "twins",
                "and data.colliders are 0; give one of them",
            ),
            (self.mediators > self.causes, "mediators", "are more than data.causes; lower them"),
            (
                self.confounders > min(self.causes, self.twins),
                "confounders",
                "are more than data.causes or data.twins; each needs one of both",
            ),
            (
                bool(self.colliders and not self.distractors),
                "colliders",
                "need a distractor; raise data.distractors",
            ),
            (
                bool(per_twin) and len(per_twin) != self.twins,
                "strength",
                f"has {len(per_twin)} numbers for {self.twins} twins; give one, or one per twin",
            ),
            (len(set(self.shifts)) < len(self.shifts), "shifts", "must be different"),
        )
        for is_wrong, setting, problem in problems:
            if is_wrong:
                raise SettingError(f"data.{setting}", problem)

    @property
    def linear_fit(self) -> LinearFit:
        """Return how the linear reference rules are fitted."""
        return "logistic" if self.label == "classes" else "least_squares"

    @property
    def splits(self) -> tuple[str, ...]:
        """Return "train", "iid", and the shifts."""
        return (TRAIN, "iid", *self.shifts)

    @cached_property
    def drawn(self) -> Drawn:
        """Return the drawn model with what its shifts need."""
        return _draw(self._kind)

    @property
    def model(self) -> CausalModel:
        """Return the causal model of the training records."""
        return self.drawn.model

    @property
    def link(self) -> str:
        """Return what stands between name and value of a factor."""
        return self._wording.link

    def stream(self, split: str, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split.

        Raises:
            InputError: The model cannot tell causal from spurious; its scores are named.
        """
        _check(self._kind)
        return self._generate(split, seed)

    def redraw_spurious(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the spurious factors as out of distribution."""
        new = {name: str(how.redraw(rng, {})) for name, how in self.drawn.spurious.items()}
        return replace_values(record, new, self.link)

    def shortcut(self, record: Record) -> str:
        """Judge by the spurious factors alone, as if each still copied its source."""
        return self.model.judge(guess_parents(self.drawn, self.read(record.input)))

    def measures(self, answer: str, target: str) -> Mapping[str, float]:
        """Return the absolute error of a number, and whether it is close."""
        if self.label != "number":
            return {}
        # A quarter of the answer's standard deviation.
        tolerance = max(1, round(self.drawn.answer.spread / 4))
        return number_measures(answer, target, tolerance)

    def reference_scores(self) -> dict[str, dict[str, float]]:
        """Return how the reference rules do on 500 records each of "iid", "ood" and the shifts.

        The share of right answers or, where they are numbers, of close ones.
        """
        return {rule: dict(scores) for rule, scores in _scores(self._kind).items()}

    @property
    def is_linked(self) -> bool:
        """Tell whether some twin copies in training; without, the task is a control."""
        return np.max(self.strength) > 0

    @property
    def _wording(self) -> Wording:
        return WORDINGS[self.wording]

    @cached_property
    def _kind(self) -> "SCM":
        """Return the settings without those that the model and its check do not depend on."""
        return replace(self, train_records=1, test_records=1, test_files=())

    def _generate(self, split: str, seed: int) -> Iterator[Record]:
        drawn, rng = self.drawn, random_stream(f"scm-{self.model_seed}", split, seed)
        is_shifted = split not in (TRAIN, "iid")
        model = shifted(drawn, cast("Shift", split)) if is_shifted else drawn.model
        for _ in itertools.count():
            values = model.draw(rng)
            yield self._write(values, rng)

    def _write(self, values: Values, rng: np.random.Generator) -> Record:
        names = [name for name in values if name != HIDDEN]
        orders = rng if self.order == "shuffled" else np.random.default_rng(self.model_seed)
        ordered = {names[i]: values[names[i]] for i in orders.permutation(len(names)).tolist()}
        asked = question(self.drawn.outcome, self.drawn.answer.words)
        return annotated_record(
            f"{self._wording.write(ordered)}{asked} {ANSWER}",
            self.model.judge(values),
            self.model.ancestors if self.paths else self.model.causes,
            **self.style,
            link=self.link,
        )


@cache
def _draw(kind: SCM) -> Drawn:
    seeds = np.random.SeedSequence(kind.model_seed, spawn_key=tuple(b"scm"))
    rng = np.random.default_rng(seeds)
    strengths = kind.strength
    if not isinstance(strengths, tuple):
        strengths = (strengths,) * kind.twins
    sizes = Sizes(
        kind.causes,
        kind.mediators,
        kind.confounders,
        kind.colliders,
        kind.distractors,
        strengths,
    )
    factors, spurious, parents = draw_factors(sizes, rng)
    sample = sample_values(factors, 2_001, rng)
    answer = make_answer(kind.mechanism, kind.label, kind.classes, parents, sample, rng)
    outcome = OUTCOMES[rng.integers(len(OUTCOMES))]
    if kind.noise:
        deviation = kind.noise * answer.spread
        factors.append(Factor(HIDDEN, "hidden", lambda rng, values: rng.normal(0, deviation)))
    return Drawn(CausalModel(tuple(factors), parents, answer.judge, outcome), spurious, answer)


@cache
def _scores(kind: SCM) -> dict[str, dict[str, float]]:
    def draw(split: str) -> list[Record]:
        return list(itertools.islice(kind._generate(split, seed=0), CHECKED_RECORDS))

    training = draw(TRAIN)
    rules = {
        "oracle": kind.oracle,
        "shortcut": kind.shortcut,
        "majority": majority_rule(training),
        **kind.linear_rules(training),
    }
    tests = {split: draw(split) for split in dict.fromkeys(("iid", "ood", *kind.shifts))}

    return {
        name: {split: score_rule(rule, records, kind.is_close) for split, records in tests.items()}
        for name, rule in rules.items()
    }


@cache
def _check(kind: SCM) -> None:
    """Refuse a model on which the reference rules cannot tell causal from spurious."""
    scores = _scores(kind)
    oracle, majority = scores["oracle"], scores["majority"]
    spurious = {
        split: max(scores[rule][split] for rule in ("shortcut", "linear_spurious"))
        for split in ("iid", "ood")
    }
    tempts = spurious["iid"] - majority["iid"] >= TEMPTATION or not kind.is_linked
    if tempts and oracle["ood"] - max(spurious["ood"], majority["ood"]) >= MARGIN:
        return
    listed = ", ".join(
        f"{name} {found['iid']:.1%} and {found['ood']:.1%}"
        for name, found in (("oracle", oracle), ("spurious", spurious), ("majority", majority))
    )
    raise InputError(
        f"task scm, model {kind.model_seed} cannot tell causal from spurious (right in and out of "
        f"distribution by rule: {listed}); choose another data.model_seed, or less data.noise"
    )
