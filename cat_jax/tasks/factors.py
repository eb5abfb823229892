"""What both Spurious Token Games share: "NAME: VALUE" texts, annotation, edits, the task."""

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np

from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from cat_jax.tasks.base import TRAIN, Intervention, Rule, Task
from cat_jax.tasks.edits import replace_text

Split = Literal["train", "iid", "ood"]
Granularity = Literal["span", "value"]
Effect = Literal["target", "answer"]

ANSWER = "Answer: "


def stream(game: str, split: Split, seed: int) -> np.random.Generator:
    """Open a random stream of its own for every game, split and seed."""
    check_choice("split", split, get_args(Split))
    if seed < 0:
        raise InputError(f"seed must be 0 or greater, not {seed}")
    key = tuple(f"{game}/{split}".encode())
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


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
    rng = stream(game, split, seed)
    for option, choices in (("granularity", Granularity), ("effect", Effect)):
        if option in style:
            check_choice(option, style[option], get_args(choices))
    return (write(draw(rng, ood=split == "ood"), **style) for _ in itertools.count())


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Raise InputError unless the option's value is one of the choices."""
    if value not in choices:
        raise InputError(f"{option} must be one of {', '.join(choices)}, not {value!r}")


def annotated_record(
    text: str,
    target: str,
    causal: tuple[str, ...],
    *,
    granularity: Granularity,
    effect: Effect,
    trace: bool,
) -> Record:
    """Annotate the answer with the causal factors of the text.

    Whole factors and the answer stand once in the text, and are written as published, by their
    words alone; a value may stand again elsewhere and carries its offset.
    """
    matches = find_factors(text, causal).values()
    if granularity == "span":
        causes = tuple(Span(match[0]) for match in matches)
    else:
        causes = tuple(Span(match["value"], match.start("value")) for match in matches)
    answer = Span(target if effect == "target" else ANSWER + target)
    traced = tuple(_traced(text, match) for match in matches) if trace else ()
    return Record(text, target, (Annotation(answer, causes), *traced))


def _traced(text: str, match: re.Match[str]) -> Annotation:
    """Annotate the words after a factor: they depend on the factor alone.

    They are predicted from the factor's value, so this guides the value as a query: otherwise a
    cause could carry to the answer what it read from spurious factors.
    """
    following = re.compile(r"\s*(\w+|\S)").match(text, match.end())
    if following is None:
        raise InputError(f"nothing follows {match[0]!r} in {text!r}")
    return Annotation(Span(following[1], following.start(1)), (Span(match[0]),))


def find_factors(text: str, names: tuple[str, ...]) -> dict[str, re.Match[str]]:
    """Where each factor stands, in text order.

    Of "Coal Dependency: 13.4%", group 0 is all, "value" is "13.4%" and "number" is "13.4".

    Raises:
        InputError: a factor is missing.
    """
    found = {match["name"]: match for match in _pattern(names).finditer(text)}
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"the text must hold '{missing[0]}: NUMBER' but does not: {text!r}")
    return found


@functools.cache
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    number = r"(?P<number>-?\d+(\.\d+)?)"
    return re.compile(
        rf"(?P<name>{'|'.join(map(re.escape, names))}): (?P<value>{number}(%|th|Mbps)?)"
    )


def replace_values(record: Record, values: Mapping[str, str]) -> Record:
    """Put new values (with their units) into the prompt and move annotation offsets along.

    Raises:
        InputError: a factor is missing, or an annotation covers a value to be replaced.
    """
    matches = find_factors(record.input, tuple(values)).values()
    return replace_text(
        record, [(*match.span("value"), values[match["name"]]) for match in matches]
    )


@dataclass(frozen=True, kw_only=True)
class SpuriousTokenGame(Task):
    """A game of generated records, with IID and OOD test sets.

    Attributes:
        train_records: Records in the training set.
        test_records: Records in each of the two test sets, IID and OOD.
        granularity: Annotated cause: "Smoking: 8" (``span``) or "8" (``value``).
        effect: Annotated effect: the answer (``target``) or "Answer: ..." (``answer``).
        trace: Annotate the text after each cause too, as depending on that cause alone.
    """

    train_records: Count = 1_600
    test_records: Count = 400
    granularity: Granularity = "value"
    effect: Effect = "target"
    trace: bool = False

    published_style: ClassVar[Mapping[str, Any]]
    """Annotation of the paper's data."""
    spurious_names: ClassVar[tuple[str, ...]]
    generator: ClassVar[Callable[..., Iterator[Record]]]
    """Generates the records of a split and seed in a style."""
    redraw_spurious: ClassVar[Intervention]
    oracle: ClassVar[Rule]
    """Answers by the causal factors."""
    shortcut: ClassVar[Rule]
    """Answers by the spurious factors."""

    def __post_init__(self):
        check_ranges(self, "data")

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return get_args(Split)

    @property
    def style(self) -> dict[str, Any]:
        """Return how records are annotated."""
        return {"granularity": self.granularity, "effect": self.effect, "trace": self.trace}

    def stream(self, split: Split, seed: int = 0) -> Iterator[Record]:
        """Generate the endless records of a split."""
        return self.generator(split=split, seed=seed, **self.style)

    def make_records(self, split: str, seed: int) -> list[TrainingRecord]:
        """Return the first records of the split's stream."""
        count = self.train_records if split == TRAIN else self.test_records
        return list(itertools.islice(self.stream(cast("Split", split), seed), count))

    def as_published(self) -> "SpuriousTokenGame":
        """Return the same records with the annotations that the paper's data has."""
        return dataclasses.replace(self, **self.published_style)

    def spurious_spans(self, record: TrainingRecord) -> list[Span]:
        """Return where the record names its spurious factors."""
        assert isinstance(record, Record)  # games have no conversations
        found = find_factors(record.input, self.spurious_names)
        return [Span(match[0], match.start()) for match in found.values()]

    @property
    def interventions(self) -> Mapping[str, Intervention]:
        """Return "spurious", which redraws the spurious factors alone."""
        return {"spurious": self.redraw_spurious}

    def reference_rules(self, seed: int = 0) -> Mapping[str, Rule]:
        """Return the oracle, the shortcut, and the most frequent training answer."""
        training = itertools.islice(self.stream(TRAIN, seed), self.train_records)
        majority = Counter(record.target for record in training).most_common(1)[0][0]
        return {
            "oracle": self.oracle,
            "shortcut": self.shortcut,
            "majority": lambda record: majority,
        }
