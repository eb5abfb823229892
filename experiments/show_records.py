"""Show records as the model will see them: tokens, what is trained, effects with their causes."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from experiments.command_line import exit_status, parse_arguments
from experiments.reading import Model, Train


@dataclass(frozen=True)
class Args:
    """What to show.

    Attributes:
        source: File, folder, or name such as hub:REPO:SPLIT (docs/data.md).
        model: Whose tokenizer and chat template.
        train: How training will read the records.
        count: Records to show; the statistics are of all.
        html: File for a page with the same; it loads nothing from elsewhere.
        columns: Names of the columns whose fields are called otherwise (input=question).
        template_options: Variables of the chat template (enable_thinking=false).
    """

    source: Annotated[str, tyro.conf.Positional]
    model: Model
    train: Train = field(default_factory=Train)
    count: Count = 5
    html: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    template_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Print the records, and write the page.

    Raises:
        InputError: Records or tokenizer cannot be read, or the page cannot be written.
    """
    args = parse_arguments(Args, prog="python -m experiments.show_records", description=__doc__)
    from rich.console import Console

    from cat_jax.analysis import show_records

    shown = show_records(
        args.source,
        args.model.name,
        count=args.count,
        max_length=args.train.max_length,
        match=args.train.match,
        columns=args.columns,
        template_options=args.template_options,
    )
    Console().print(shown)
    if args.html is not None:
        try:
            shown.save_html(args.html)
        except (OSError, ValueError) as error:  # ValueError: a name with NUL
            raise InputError(f"--html: cannot write {args.html!r} ({error})") from error


if __name__ == "__main__":
    sys.exit(exit_status(main))
