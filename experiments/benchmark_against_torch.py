"""Time training steps of this package and of torch with transformers, in turn, side by side.

Each contender runs in a process of its own, on the same records with the same optimizer: plain
steps (torch: sdpa), and steps of CAT (torch: eager attention with full maps and the published loss,
in loops as published, and vectorised). The exit status is 1 where a bar is missed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, get_args

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from experiments.benchmarking.contenders import Contender, Task, Timing
from experiments.benchmarking.processes import run_module, write_results
from experiments.command_line import exit_status, parse_arguments

BARS = {
    "cpu": {"plain/torch_plain": 0.85, "cat/plain": 1.05, "cat/torch_cat_loops": 0.5},
    "gpu": {"plain/torch_plain": 1.0, "cat/plain": 1.05, "cat/torch_cat_loops": 0.5},
}
"""Largest ratios of seconds; peak memory may be no larger than torch's either."""


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Stem of the files to write, OUT.json and OUT.md.
        model: Hugging Face folder; with a config.json alone its weights are random.
        length: Positions of a sequence, one measurement each.
        sequences: Sequences of a batch, for each length.
        targets: Trained tokens of each sequence, at its end.
        steps: Steps of each round, after two that are not counted.
        rounds: Rounds in which every contender has its turn.
        device: Where to compute.
        contenders: Who takes part; all where none is named.
        trace: Folder for a profiler trace of one step of each of this package's contenders; none
            if empty.
    """

    out: Annotated[str, tyro.conf.Positional]
    model: str
    length: tuple[int, ...] = (68, 512)
    sequences: tuple[int, ...] = (16, 2)
    targets: Count = 4
    steps: Count = 5
    rounds: Count = 1
    device: Literal["cpu", "gpu"] = "cpu"
    contenders: tuple[Contender, ...] = get_args(Contender)
    trace: str = ""

    def __post_init__(self):
        check_ranges(self, "")
        if len(self.length) != len(self.sequences):
            raise InputError("give --sequences once for each --length")
        if min(self.length) < self.targets + 2:
            raise InputError(f"a sequence has {self.targets} targets and needs tokens before them")
        if not (Path(self.model) / "config.json").is_file():
            raise InputError(f"{self.model} has no config.json; give a Hugging Face folder")


@dataclass(frozen=True)
class Result:
    """What a contender did at one length.

    Attributes:
        contender: Who.
        length: T.
        sequences: B.
        seconds: Of each step, in all rounds; empty if it failed.
        peak_bytes: Largest peak of a round.
        loss: Of the last step; None if it failed.
        failed: Why it failed; empty if it did not.
    """

    contender: str
    length: int
    sequences: int
    seconds: list[float]
    peak_bytes: int
    loss: float | None
    failed: str = ""


def main() -> None:
    """Measure, write, and say which bars are missed.

    Raises:
        InputError: The settings or the model are bad.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_against_torch", description=__doc__
    )
    from cat_jax.train.provenance import describe_environment

    machine = describe_environment(("jax", "torch", "transformers"))
    results, missed = [], []
    for length, sequences in zip(args.length, args.sequences, strict=True):
        found = measure(args, length, sequences)
        results += found
        missed += missed_bars(found, args.device)
        write_results(args, machine, results, page(results, machine, args))
    print(table(results), end="")
    for line in missed:
        print(f"missed: {line}")
    sys.exit(1 if missed else 0)


def measure(args: Args, length: int, sequences: int) -> list[Result]:
    """Give each contender its turn, round by round."""
    common = args.model, length, sequences, args.targets, args.steps, args.device, args.trace
    rounds = [[run(Task(name, *common)) for name in args.contenders] for _ in range(args.rounds)]
    results = []
    for name, turns in zip(args.contenders, zip(*rounds, strict=True), strict=True):
        good = [turn for turn in turns if isinstance(turn, Timing)]
        failed = next((turn for turn in turns if isinstance(turn, str)), "")
        seconds = [second for turn in good for second in turn.seconds]
        peak = max((turn.peak_bytes for turn in good), default=0)
        loss = good[-1].loss if good else None
        results.append(Result(name, length, sequences, seconds, peak, loss, failed))
    return results


def run(task: Task) -> Timing | str:
    """Run a contender in its own process; return why it failed, if it did."""
    found = run_module("experiments.benchmarking.contenders", task)
    return found if isinstance(found, str) else Timing(**found)


def missed_bars(results: list[Result], device: str) -> list[str]:
    """Return the bars that these results miss, each with how far."""
    by_name = {x.contender: x for x in results if x.seconds}
    missed = []
    for pair, bar in BARS[device].items():
        ours, theirs = (by_name.get(name) for name in pair.split("/"))
        if ours and theirs:
            ratio = median(ours.seconds) / median(theirs.seconds)
            if ratio > bar:
                missed.append(f"T = {ours.length}, time {pair}: {ratio:.2f}, to reach {bar}")
    for ours, theirs in (("plain", "torch_plain"), ("cat", "torch_cat")):
        if ours in by_name and theirs in by_name:
            ratio = by_name[ours].peak_bytes / by_name[theirs].peak_bytes
            if ratio > 1:
                missed.append(
                    f"T = {by_name[ours].length}, memory {ours}/{theirs}: {ratio:.2f}, to reach 1"
                )
    return missed


def page(results: list[Result], machine: str, args: Args) -> str:
    """Return the page: what was measured where, and the table."""
    lines = [
        "# Training steps beside torch's",
        "",
        f"`python -m experiments.benchmark_against_torch OUT --model FOLDER`: steps of "
        f"{Path(args.model).name}, each contender in a process of its own, on the same random "
        f"tokens, {args.targets} trained tokens a sequence, AdamW, medians of "
        f"{args.steps * args.rounds} steps after two. `plain` and `cat` are this package's.",
        "",
        table(results),
        machine,
    ]
    return "\n".join(lines) + "\n"


def table(results: list[Result]) -> str:
    """Return a table in Markdown: median and range of the seconds, tokens/s, peak memory."""
    lines = [
        "| T | sequences | step | seconds (median, range) | tokens/s | peak GiB | loss |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for x in results:
        start = f"| {x.length} | {x.sequences} | {x.contender} |"
        if not x.seconds:
            lines.append(f"{start} failed: {x.failed} | | | |")
            continue
        middle = median(x.seconds)
        rate = x.length * x.sequences / middle
        lines.append(
            f"{start} {middle:.3f} ({min(x.seconds):.3f} to {max(x.seconds):.3f}) | {rate:,.0f} | "
            f"{x.peak_bytes / 2**30:.2f} | {x.loss:.4f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
