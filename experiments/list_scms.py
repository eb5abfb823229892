"""Draw random structural causal models, check them, and list them with their reference scores."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from cat_jax.files import write_text
from cat_jax.markdown import markdown_table
from cat_jax.ranges import Count, Seed, check_ranges
from cat_jax.tasks import SCM, random_scm
from experiments.command_line import exit_status, parse_arguments

COLUMNS = ("seed", "model", "answer", "factors", "text")
RULES = ("oracle", "shortcut", "linear_spurious", "linear_all", "majority")

INTRODUCTION = """# Random causal models

`python -m experiments.list_scms {file} --draws {draws}{seed}` draws kinds of causal models at
random (`cat_jax.tasks.random_scm`), then the first model of each kind on which the reference rules
can tell causal from spurious (docs/tasks.md). Below: the share of right answers of each rule in and
out of distribution (do(spurious factors)), on 500 records each; of numbers the share within a
quarter of their standard deviation. The rest follows from the seed alone.

*Factors*: causes + mediators / twins + colliders / confounders / distractors.
"""


@dataclass(frozen=True)
class Args:
    """List random structural causal models in a Markdown page.

    Attributes:
        file: Page to write.
        draws: How many.
        seed: Seed of the first; the others count up.
    """

    file: tyro.conf.Positional[str]
    draws: Count = 20
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self, "")


def row(seed: int) -> list[str]:
    """Draw a model and return its cells: what it is, then each rule in and out of distribution."""
    task = random_scm(seed)
    scores = task.reference_scores()
    shown = (f"{100 * scores[r]['iid']:.0f} / {100 * scores[r]['ood']:.0f}" for r in RULES)
    return [str(seed), str(task.model_seed), *describe(task), *shown]


def describe(task: SCM) -> tuple[str, str, str]:
    """Return the answer, the numbers of factors, and the text of a kind."""
    noise = f", noise {task.noise:g}" if task.noise else ""
    label = f"{task.classes} classes" if task.label == "classes" else task.label
    factors = (
        f"{task.causes} + {task.mediators} / {task.twins} + {task.colliders} / "
        f"{task.confounders} / {task.distractors}"
    )
    return f"{label}, {task.mechanism}{noise}", factors, f"{task.wording}, {task.order}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = parse_arguments(Args, prog="python -m experiments.list_scms", args=arguments)
    rows = [row(seed) for seed in range(args.seed, args.seed + args.draws)]
    introduction = INTRODUCTION.format(
        file=args.file, draws=args.draws, seed=f" --seed {args.seed}" if args.seed else ""
    )
    table = markdown_table([*COLUMNS, *(f"{rule} %" for rule in RULES)], rows)
    write_text(Path(args.file), f"{introduction}\n{table}\n")
    print(args.file)


if __name__ == "__main__":
    sys.exit(exit_status(main))
