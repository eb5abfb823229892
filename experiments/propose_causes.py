"""Rank the words of each prompt by how much a model's answer depends on them, for an expert.

A proposal says what this model uses, which may be spurious. It is never the truth.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Literal

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, Seed, check_ranges
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to rank.

    Attributes:
        source: File, folder, or name such as hub:REPO:SPLIT (docs/data.md).
        model: Hugging Face folder or hub name, PEFT folder, or folder of a run.
        out: JSONL file for the records, each with its ranking in the field "proposals".
        by: What to rank by (docs/annotation.md).
        spans: What is ranked: the numbers of each prompt, in whose place other numbers are drawn,
            or the words that differ between prompts of one template, in whose place are drawn
            those of the other records.
        top: Make this many proposals of each record causes of its answer, as a draft for review.
        samples: Draws for each span.
        seed: Seed of the draws.
        limit: Records to rank, from the first; all where none is given.
        columns: Names of the columns whose fields are called otherwise (input=question).
    """

    source: Annotated[str, tyro.conf.Positional]
    model: str
    out: str
    by: Literal["replacement", "removal", "gradient", "attention"] = "replacement"
    spans: Literal["numbers", "words"] = "numbers"
    top: Count | None = None
    samples: Count = 8
    seed: Seed = 0
    limit: Count | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Rank; the last line compares with the records' annotations, if they have some.

    Raises:
        InputError: Records or model cannot be read, or the file cannot be written.
    """
    args = parse_arguments(Args, prog="python -m experiments.propose_causes", description=__doc__)
    from cat_jax.analysis.proposals import (
        OtherRecords,
        as_annotation,
        causes_ranked_first,
        number_spans,
        other_number,
        propose_causes,
    )
    from cat_jax.data.records import Record
    from cat_jax.data.sources import read_records, training_record_fields
    from cat_jax.files import write_text
    from cat_jax.models import load_language_model

    records = [
        record
        for record in islice(read_records(args.source, columns=args.columns), args.limit)
        if isinstance(record, Record)
    ]
    if not records:
        raise InputError(f"{args.source} has no prompts and answers to rank")
    others = OtherRecords(records)
    is_numbers = args.spans == "numbers"
    ranked = propose_causes(
        load_language_model(args.model),
        records,
        by=args.by,
        spans=number_spans if is_numbers else others.spans,
        draw=other_number if is_numbers else others.draw,
        samples=args.samples,
        seed=args.seed,
    )
    lines = []
    for record, proposals in zip(records, ranked, strict=True):
        draft = record if args.top is None else as_annotation(record, proposals, top=args.top)
        found = [proposal_fields(x) for x in proposals]
        lines.append(json.dumps(training_record_fields(draft) | {"proposals": found}) + "\n")
    write_text(args.out, "".join(lines))
    print(f"{len(records):,} records are ranked: {args.out}")
    share = causes_ranked_first(records, ranked)
    if share == share:
        print(f"annotated causes among the first as many: {share:.1%}")


def proposal_fields(proposal: Any) -> dict[str, Any]:
    """Return a proposal as JSON; an interval that is not there is null."""
    has_interval = proposal.low == proposal.low
    return {
        "text": proposal.span.text,
        "start": proposal.span.start,
        "by": proposal.by,
        "effect": proposal.effect,
        "draws": proposal.draws,
        "interval": [proposal.low, proposal.high] if has_interval else None,
    }


if __name__ == "__main__":
    sys.exit(exit_status(main))
