"""Make a page on which a person reviews annotations, or files of Label Studio and back."""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from cat_jax.errors import InputError
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to review.

    Attributes:
        source: Annotated records, such as experiments.annotate writes, with their rejects; or with
            --from-label-studio a JSON export.
        prior: YAML file (docs/annotation.md), or math, choice, risk, regression or steps.
        out: Page to write (.html); tasks for Label Studio (.json); or with --from-label-studio the
            annotated records (.jsonl).
        from_label_studio: Read an export of Label Studio.
    """

    source: Annotated[str, tyro.conf.Positional]
    prior: str
    out: str
    from_label_studio: bool = False

    def __post_init__(self):
        endings = (".jsonl",) if self.from_label_studio else (".html", ".json")
        if not self.out.endswith(endings):
            raise InputError(f"--out must end in {' or '.join(endings)}, not {self.out!r}")


def main() -> None:
    """Write what is asked for.

    Raises:
        InputError: A file cannot be read or written.
    """
    args = parse_arguments(Args, prog="python -m experiments.review", description=__doc__)
    from cat_jax.annotation import read_prior
    from cat_jax.annotation.review import (
        read_label_studio,
        read_review_items,
        save_review,
        write_label_studio,
    )
    from cat_jax.data.sources import write_records

    prior = read_prior(args.prior)
    if args.from_label_studio:
        records = read_label_studio(args.source, prior)
        write_records(args.out, records)
        print(f"{len(records):,} records are reviewed: {args.out}")
        return
    items = read_review_items(args.source)
    rejected = sum(bool(item.reasons) for item in items)
    if args.out.endswith(".html"):
        save_review(args.out, items, prior)
        print(f"{len(items):,} records, {rejected:,} of them rejected; open {args.out}")
    else:
        write_label_studio(args.out, items, prior)
        print(f"{len(items):,} tasks: {args.out}; labelling configuration: {args.out}.xml")


if __name__ == "__main__":
    sys.exit(exit_status(main))
