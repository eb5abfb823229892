"""Make docs/results.md and its figures from the results in benchmarks/results.

Each file there is the table.json of a sweep, or holds the numbers of a comparison by method and
seed. No number is written by hand; a cell without a result says "not run".
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.command_line import exit_status, parse_arguments

INTRODUCTION = """# Results

Made by `python -m experiments.report_results` from the files in
[benchmarks/results](../benchmarks/results); no number is written by hand. Values are the mean over
seeds, ± standard deviation of several. *IID*: exact match of greedy answers to records distributed
like the training data. *OOD*: the same where the spurious correlations of the training data do not
hold. *Mass*: attention on annotated causes. *Changed*: share of IID answers that change when only
what is spurious is redrawn. A row that was not run says so; nothing is an estimate."""


@dataclass(frozen=True)
class Args:
    """Where results are read and the page is written.

    Attributes:
        results: Folder of the results.
        page: Page to write; figures are written to ``figures`` beside it.
    """

    results: Path = Path("benchmarks/results")
    page: Path = Path("docs/results.md")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write page and figures.

    Raises:
        InputError: There are no results, or a file is none of results.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.report_results", description=__doc__, args=arguments
    )
    from cat_jax.errors import InputError
    from cat_jax.files import save_errors, write_text
    from experiments.results_data import read_results
    from experiments.results_figures import draw_figures
    from experiments.results_page import not_run, section

    found = read_results(args.results)
    if not found:
        raise InputError(
            f"{args.results} holds no results; name the folder of benchmarks/results with --results"
        )
    parts = [INTRODUCTION]
    with save_errors(lambda: "the results are as they were"):
        for results in found:
            figures = draw_figures(results, args.page.parent / "figures")
            parts.append(section(results, figures))
        parts += not_run({results.name for results in found})
        write_text(args.page, "\n\n".join(parts) + "\n")
    print(args.page)


if __name__ == "__main__":
    sys.exit(exit_status(main))
