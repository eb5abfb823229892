"""What an experiment trains and tests on, as records."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cat_jax.config import GeneratedData, JsonlData
from cat_jax.data.records import Record, Span, read_jsonl
from cat_jax.errors import InputError
from cat_jax.tasks import stg, stg_h
from cat_jax.tasks.factors import Split, find_factors

GENERATORS = {"stg": stg.stg_records, "stg_h": stg_h.stg_h_records}
INTERVENTIONS = {"stg": stg.intervene, "stg_h": stg_h.intervene}

RESERVED = ("causal_mass", "changed_answers", "seconds_per_step", "std", "seeds")
"""What a report holds beside the accuracy of each test set; no test set may be called so."""


@dataclass(frozen=True)
class Splits:
    """Training rows, and test rows by name: "iid", "ood", then the stems of further files."""

    train: list[Record]
    tests: dict[str, list[Record]]


def load_splits(data: GeneratedData | JsonlData, seed: int) -> Splits:
    """Generates or reads the rows; ``seed`` matters to generated ones alone.

    Raises:
        InputError: a file is missing, empty or malformed, two files share a name, or a file has
            a name that reports use.
    """
    if isinstance(data, GeneratedData):
        train = list(itertools.islice(records(data, "train", seed), data.train_rows))
        tests = {
            split: list(itertools.islice(records(data, split, seed), data.test_rows))
            for split in ("iid", "ood")
        }
    else:
        train = read_rows(data.train)
        tests = {"iid": read_rows(data.iid), "ood": read_rows(data.ood)}
    for file in data.test_files:
        name = Path(file).stem
        if name in RESERVED:
            raise InputError(
                f"data.test_files: {name!r} means something else in reports; rename {file}"
            )
        if name in tests:
            raise InputError(f"data.test_files: two test sets are named {name!r}; rename {file}")
        tests[name] = read_rows(file)
    return Splits(train, tests)


def records(data: GeneratedData, split: Split, seed: int) -> Iterator[Record]:
    """The endless stream of one split."""
    return GENERATORS[data.game](
        split=split,
        seed=seed,
        granularity=data.granularity,
        effect=data.effect,
        trace=data.trace,
    )


def as_published(data: GeneratedData | JsonlData) -> GeneratedData | JsonlData:
    """The same rows with the annotations of the published files; one's own stay as they are."""
    if isinstance(data, JsonlData):
        return data
    granularity = "span" if data.game == "stg" else "value"
    effect = "target" if data.game == "stg" else "answer"
    return dataclasses.replace(data, granularity=granularity, effect=effect, trace=False)


def read_rows(path: str) -> list[Record]:
    """``read_jsonl`` that refuses a file without rows."""
    rows = read_jsonl(Path(path))
    if not rows:
        raise InputError(f"{path} holds no records; each line is one JSON object")
    return rows


def intervened(data: GeneratedData, rows: list[Record], seed: int) -> list[Record]:
    """The rows with only their spurious factors redrawn; the right answers stay the same."""
    rng = np.random.default_rng(seed)
    return [INTERVENTIONS[data.game](row, rng) for row in rows]


def spurious_spans(data: GeneratedData | JsonlData, record: Record) -> list[Span]:
    """Where a generated row names its spurious factors; nobody knows for one's own rows."""
    if isinstance(data, JsonlData):
        return []
    names = {"stg": stg.SPURIOUS, "stg_h": stg_h.SPURIOUS}[data.game]
    found = find_factors(record.input, tuple(names))
    return [Span(match[0], match.start()) for match in found.values()]
