"""What an evaluation found: answers by test set, and the scores that follow from them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.evaluation.answers import changed_answers
from cat_jax.evaluation.causal_mass import CausalMass
from cat_jax.evaluation.rules import changed_name
from cat_jax.evaluation.sensitivity import Sensitivity, score_sensitivity, sensitivity_shares
from cat_jax.evaluation.statistics import Score, mean_score, share_score

MOST_LABELS = 20
"""Answers are labels where there are two to so many, and each stands twice on average."""


def is_absolute(score: str) -> bool:
    """Tell whether a score is in units of the answer; all others are shares."""
    return score.endswith("absolute_error")


@dataclass(frozen=True)
class TestAnswers:
    """A model's answers to a test set.

    Attributes:
        answers: Parsed answers.
        targets: Right answers, parsed likewise.
        right: Whether each answer is right, [R] bool.
        mass: Causal mass on the annotated records; None where it was not measured.
        measured: The task's further measures of each answer, [R] float64; NaN where it has none.
        replies: What the model wrote, before it was parsed.
        records: What it was asked, as the task has it.
        log_probs: Log-probability of each right answer in nats, its end included, [R] float64;
            None where it was not measured.
        groups: Group of each record (``Task.group``); None where it has none.
    """

    __test__ = False

    answers: list[str]
    targets: list[str]
    right: np.ndarray
    mass: CausalMass | None
    measured: dict[str, np.ndarray] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)
    records: list[TrainingRecord] = field(default_factory=list)
    log_probs: np.ndarray | None = None
    groups: list[str | None] = field(default_factory=list)

    @property
    def exact_match(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())

    @property
    def measures(self) -> dict[str, float]:
        """Means of the task's further measures; NaN where no answer has one."""
        known = {name: values[np.isfinite(values)] for name, values in self.measured.items()}
        return {name: float(x.mean()) if x.size else math.nan for name, x in known.items()}

    @property
    def by_label(self) -> dict[str, np.ndarray]:
        """Whether the answers are right, by right answer; empty where answers are no labels."""
        counts = Counter(self.targets)
        if not 2 <= len(counts) <= min(MOST_LABELS, len(self.targets) / 2):
            return {}
        return _split(self.right, self.targets)

    @property
    def by_group(self) -> dict[str, np.ndarray]:
        """Whether the answers are right, by the group of the record."""
        return _split(self.right, self.groups)

    @property
    def scores(self) -> dict[str, Score]:
        """Return exact match and measures, whole, by label and by group, with intervals.

        Names are "exact_match", those of the measures, "label LABEL", "group GROUP" and, of
        several groups, "worst group".
        """
        found = {name: share_score(right) for name, right in self.shares.items()}
        for name, values in self.measured.items():
            if is_absolute(name) and np.isfinite(values).any():
                found[name] = mean_score([values[np.isfinite(values)]], crossed=True)
        return found

    @property
    def shares(self) -> dict[str, np.ndarray]:
        """Whether each record is right, for every score that is a share, by its name."""
        found = {"exact_match": self.right}
        found |= {
            name: values[np.isfinite(values)].astype(bool)
            for name, values in self.measured.items()
            if not is_absolute(name)
        }
        found |= {f"label {label}": right for label, right in self.by_label.items()}
        groups = self.by_group
        found |= {f"group {group}": right for group, right in groups.items()}
        if len(groups) > 1:
            found["worst group"] = min(groups.values(), key=np.mean)
        return found


def _split(right: np.ndarray, keys: Sequence[str | None]) -> dict[str, np.ndarray]:
    known = sorted({key for key in keys if key is not None})
    return {key: right[[other == key for other in keys]] for key in known}


def _differ(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    return np.array([a.strip() != b.strip() for a, b in zip(first, second, strict=True)], bool)


def _asked(record: TrainingRecord) -> Any:
    return record.input if isinstance(record, Record) else record


@dataclass(frozen=True)
class Evaluation(Mapping[str, TestAnswers]):
    """What a model does on a task: answers by test set, and what interventions change.

    Attributes:
        task: Name of the task.
        sets: Answers by test set.
        edited: Answers to the first test set after each intervention, by its name.
        rules: Scores of the task's reference rules, by rule; as those of ``scores``.
    """

    task: str
    sets: dict[str, TestAnswers]
    edited: dict[str, TestAnswers] = field(default_factory=dict)
    rules: dict[str, dict[str, float]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> TestAnswers:
        return self.sets[name]

    def __iter__(self):
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    @property
    def changed(self) -> dict[str, float]:
        """Share of the first test set's answers that each intervention changes."""
        before = next(iter(self.sets.values())).answers
        return {name: changed_answers(before, after.answers) for name, after in self.edited.items()}

    def intervention_shares(self, name: str) -> dict[str, np.ndarray]:
        """Return what an intervention does to answers: the values of each share, bool.

        Named as in ``Sensitivity``, of the records that the intervention edited.
        """
        changed, right, moved, edited = self._facts(name)
        return sensitivity_shares(changed, right, moved, edited)

    def sensitivity(self, name: str) -> Sensitivity:
        """Return the same with intervals.

        Raises:
            InputError: The intervention edited no record.
        """
        changed, right, moved, edited = self._facts(name)
        return score_sensitivity(changed, right, moved, edited=edited)

    def _facts(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return whether answers changed, are right, whether targets and prompts changed."""
        before, after = next(iter(self.sets.values())), self.edited[name]
        pairs = zip(before.records, after.records, strict=True)
        edited = np.array([_asked(a) != _asked(b) for a, b in pairs], bool)
        moved = _differ(before.targets, after.targets)
        return _differ(before.answers, after.answers), after.right, moved, edited

    @property
    def causal_mass(self) -> float:
        """Mean causal mass on the first test set; NaN if it is not annotated."""
        mass = next(iter(self.sets.values())).mass
        return math.nan if mass is None else mass.mean

    @property
    def scores(self) -> dict[str, float]:
        """Return exact match by test set, causal mass, changed answers, further measures."""
        scores = {name: found.exact_match for name, found in self.sets.items()}
        scores["causal_mass"] = self.causal_mass
        scores |= {changed_name(name): share for name, share in self.changed.items()}
        return scores | {
            f"{name}_{measure}": value
            for name, found in self.sets.items()
            for measure, value in found.measures.items()
        }

    def __str__(self) -> str:
        scores = {name: x for name, x in self.scores.items() if not math.isnan(x)}
        shown = (
            f"{name} {x:.2f}" if is_absolute(name) else f"{name} {x:.1%}"
            for name, x in scores.items()
        )
        return f"{self.task}: {', '.join(shown)}"
