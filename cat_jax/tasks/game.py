"""Games: records drawn from a causal model, with test sets on which the spurious links are cut."""

import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, ClassVar, Literal, get_args

import networkx as nx
import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record, Span
from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from cat_jax.tasks.base import CUE_AGREES, CUE_DISAGREES, TRAIN, Intervention, Rule, Task
from cat_jax.tasks.causal_model import CausalModel, Values
from cat_jax.tasks.edits import replace_answer
from cat_jax.tasks.linear_rules import LinearFit, fit_linear_rule
from cat_jax.tasks.rules import majority_rule
from cat_jax.tasks.streams import random_stream
from cat_jax.tasks.wording import (
    LINK,
    Effect,
    Granularity,
    find_factors,
    read_values,
    rename_factors,
    reorder_factors,
    replace_values,
)

Split = Literal["train", "iid", "ood"]

FITTED_RECORDS = 2_000
"""Records to fit reference rules to: ample for a weight per factor."""


def generate(
    game: str,
    split: Split,
    seed: int,
    draw: Callable[..., Mapping[str, Any]],
    write: Callable[..., Record],
    style: Mapping[str, Any],
) -> Iterator[Record]:
    """Generate a game's records without end: ``draw`` the factors, ``write`` them in a style.

    Raises:
        InputError: A negative seed, or an unknown split, granularity or effect.
    """
    check_choice("split", split, get_args(Split))
    rng = random_stream(game, split, seed)
    for option, choices in (("granularity", Granularity), ("effect", Effect)):
        if option in style:
            check_choice(option, style[option], get_args(choices))
    return (write(draw(rng, ood=split == "ood"), **style) for _ in itertools.count())


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Raise InputError unless the option's value is one of the choices."""
    if value not in choices:
        raise InputError(f"{option} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class CausalGame(Task):
    """A task whose records are drawn from a causal model.

    Attributes:
        train_records: Records in the training set.
        test_records: Records in each test set.
        granularity: Annotated cause: "Smoking: 8" (``span``) or "8" (``value``).
        effect: Annotated effect: the answer (``target``) or "Answer: ..." (``answer``).
        trace: Annotate the text after each cause too, as depending on that cause alone.
    """

    train_records: Count = 1_600
    test_records: Count = 400
    granularity: Granularity = "value"
    effect: Effect = "target"
    trace: bool = False

    published_style: ClassVar[Mapping[str, Any]] = {}
    """Annotation of the paper's data."""

    def __post_init__(self):
        check_ranges(self, "data")

    @property
    @abstractmethod
    def model(self) -> CausalModel:
        """Return the causal model of the training records."""

    @abstractmethod
    def stream(self, split: str, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split."""

    @abstractmethod
    def redraw_spurious(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the spurious factors alone: all that causes the answer stays as it is."""

    def redraw_causal(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the causes of the answer and their own causes; judge as the oracle does.

        They are drawn together from the causal model, with the noise of their mechanisms. The
        answer is that of the values as printed: noise of its own mechanism, which is not in the
        text, is none.
        """
        edited = self._redraw(record, self.model.ancestors, rng)
        return replace_answer(edited, self.oracle(edited))

    def redraw_irrelevant(self, record: Record, rng: np.random.Generator) -> Record:
        """Redraw the factors that neither cause the answer nor follow what does."""
        return self._redraw(record, self.model.named("irrelevant"), rng)

    def reorder(self, record: Record, rng: np.random.Generator) -> Record:
        """List the factors in another order."""
        return reorder_factors(record, self.model.shown, rng, self.link)

    def rename(self, record: Record, rng: np.random.Generator) -> Record:
        """Give the factors their ``other_names``; there is nothing to draw."""
        return rename_factors(record, self.other_names, self.link)

    def _redraw(self, record: Record, names: Iterable[str], rng: np.random.Generator) -> Record:
        drawn = self.model.draw(rng)
        return replace_values(
            record, {name: self.printed(name, drawn[name]) for name in names}, self.link
        )

    def printed(self, name: str, value: float) -> str:
        """Format a factor's value as the text shows it."""
        return str(value)

    @property
    def other_names(self) -> Mapping[str, str]:
        """Return names for the intervention "rename": "Factor A", "Factor B", by factor.

        They do not tell what a factor is to the answer: letters are in alphabetical order.
        """
        pairs = itertools.product(ascii_uppercase, repeat=2)
        letters = itertools.chain(ascii_uppercase, map("".join, pairs))
        return {
            name: f"Factor {letter}"
            for name, letter in zip(sorted(self.model.shown), letters, strict=False)
        }

    @property
    def linear_fit(self) -> LinearFit:
        """Return how the linear reference rules are fitted."""
        return "least_squares"

    @abstractmethod
    def shortcut(self, record: Record) -> str:
        """Judge by the spurious factors alone, as if each still followed its cause."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return get_args(Split)

    @property
    def graph(self) -> nx.DiGraph:
        """Return the causal graph of the training records; nodes have a ``role``."""
        return self.model.graph

    @property
    def style(self) -> dict[str, Any]:
        """Return how records are annotated."""
        return {"granularity": self.granularity, "effect": self.effect, "trace": self.trace}

    @property
    def link(self) -> str:
        """Return what stands between name and value of a factor."""
        return LINK

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Return the first records of the split's stream."""
        return list(self._first_records(split, seed))

    def iter_records(self, split: str, seed: int = 0) -> Iterator[TrainingRecord]:
        """Yield the records of a split one by one; those of a test file are read first."""
        if split in self.splits:
            return self._first_records(split, seed)
        return super().iter_records(split, seed)

    def _first_records(self, split: str, seed: int) -> Iterator[Record]:
        count = self.train_records if split == TRAIN else self.test_records
        return itertools.islice(self.stream(split, seed), count)

    def as_published(self) -> "CausalGame":
        """Return the same records with the annotations that the paper's data has."""
        return dataclasses.replace(self, **self.published_style)

    def read(self, text: str) -> dict[str, float]:
        """Read the factors that stand in a text back, in text order.

        Raises:
            InputError: A factor is missing.
        """
        return read_values(text, self.model.shown, self.link)

    def spurious_spans(self, record: TrainingRecord) -> list[Span]:
        """Return where the record names its spurious factors."""
        assert isinstance(record, Record)  # games have no conversations
        found = find_factors(record.input, self.model.spurious, self.link)
        return [Span(match[0], match.start()) for match in found.values()]

    def group(self, record: TrainingRecord) -> str | None:
        """Return whether the shortcut rule is right: "cue agrees" or "cue disagrees".

        None for conversations and for texts of other games.
        """
        if not isinstance(record, Record):
            return None
        try:
            guess = self.shortcut(record)
        except InputError:  # a factor is missing
            return None
        return CUE_AGREES if self.is_close(guess, record.target) else CUE_DISAGREES

    def is_close(self, answer: str, target: str) -> bool:
        """Tell whether an answer is right or, of a number, within the tolerance of ``measures``."""
        measures = self.measures(answer, target).items()
        close = [value for name, value in measures if name.startswith("within")]
        return bool(close[0]) if close else self.is_right(answer, target)

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return edits by name: values redrawn by what they are to the answer, order, names."""
        irrelevant = {"irrelevant": self.redraw_irrelevant}
        return {
            "spurious": self.redraw_spurious,
            "causal": self.redraw_causal,
            **(irrelevant if self.model.named("irrelevant") else {}),
            "reorder": self.reorder,
            "rename": self.rename,
        }

    def oracle(self, record: Record) -> str:
        """Judge by the causal factors alone, as they stand in the text."""
        return self.model.judge(self.read(record.input))

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return oracle, shortcut, the most frequent training answer, and rules that are fitted.

        "linear_causal", "linear_spurious" and "linear_all" are linear in the values of the
        causes, the spurious factors, and all factors in the text. They are fitted to the first
        2,000 training records.
        """
        count = min(self.train_records, FITTED_RECORDS)
        training = list(itertools.islice(self.stream(TRAIN, seed), count))
        rules = {
            "oracle": self.oracle,
            "shortcut": self.shortcut,
            "majority": majority_rule(training),
            **self.linear_rules(training),
        }
        return {
            name: lambda record, rule=rule: rule(self._own_names(record))
            for name, rule in rules.items()
        }

    def _own_names(self, record: Record) -> Record:
        """Undo "rename", for rules that know the factors by their names."""
        own = {other: name for name, other in self.other_names.items()}
        is_renamed = f"{next(iter(own))}{self.link}" in record.input
        return rename_factors(record, own, self.link) if is_renamed else record

    def linear_rules(self, training: Iterable[Record]) -> dict[str, Rule]:
        """Fit the linear reference rules to training records."""
        training = list(training)
        values: list[Values] = [self.read(record.input) for record in training]
        targets = [record.target for record in training]
        chosen = {
            "linear_causal": self.model.causes,
            "linear_spurious": self.model.spurious,
            "linear_all": tuple(values[0]),
        }
        fitted = {
            name: fit_linear_rule(values, targets, factors, self.linear_fit)
            for name, factors in chosen.items()
        }
        return {
            name: lambda record, rule=rule: rule(self.read(record.input))
            for name, rule in fitted.items()
        }
