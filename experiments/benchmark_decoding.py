"""Time greedy decoding by this package, by ``transformers.generate`` and by llama.cpp, in turn.

Each decoder runs in a process of its own, on the same prompts of mixed lengths. The exit status is
1 where a bar is missed, or where answers differ from torch's.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from experiments.benchmarking.decoders import LONGEST, SHORTEST, Decoder, Task, Timing
from experiments.benchmarking.processes import run_module, write_results
from experiments.command_line import exit_status, parse_arguments

LEAST_SAME = 0.9
"""Share of the answers that must be torch's, token by token: rounding decides some near ties."""


@dataclass(frozen=True)
class Args:
    """What is measured.

    Attributes:
        out: Stem of the files to write, OUT.json and OUT.md.
        model: Hugging Face folder.
        gguf: GGUF file of the same model, for llama.cpp (pip install llama-cpp-python); without it
            llama.cpp takes no part.
        prompts: Numbers of prompts, each decoded as one batch.
        new_tokens: Largest number of new tokens of an answer.
        stops: Shares of the vocabulary that end an answer: with 0 all answers are equally long.
        rounds: Calls that are timed of each decoder, after one that is not.
        device: Where to compute.
    """

    out: Annotated[str, tyro.conf.Positional]
    model: str
    gguf: str | None = None
    prompts: tuple[int, ...] = (1, 8, 64)
    new_tokens: Count = 64
    stops: tuple[float, ...] = (0.0, 0.02)
    rounds: Count = 3
    device: Literal["cpu", "gpu"] = "cpu"

    def __post_init__(self):
        check_ranges(self, "")
        if not (Path(self.model) / "config.json").is_file():
            raise InputError(f"{self.model} has no config.json; give a Hugging Face folder")
        if self.gguf is not None:
            if find_spec("llama_cpp") is None:
                raise InputError("--gguf needs llama.cpp: pip install llama-cpp-python")
            if not Path(self.gguf).is_file():
                raise InputError(f"there is no file {self.gguf}; give a model in GGUF")
        if not self.prompts or min(self.prompts) < 1:
            raise InputError("--prompts must name numbers of at least 1")
        if not self.stops or not all(0 <= share < 1 for share in self.stops):
            raise InputError("--stops must name shares from 0 up to, not including, 1")


@dataclass(frozen=True)
class Result:
    """What a decoder did on one batch of prompts.

    Attributes:
        decoder: Who.
        prompts: Number of prompts.
        stops: Share of the vocabulary that ends an answer.
        seconds: Of each call; empty if it failed.
        first_token_seconds: Median of calls for one token of every prompt.
        new_tokens: Tokens of all answers.
        peak_bytes: Largest memory.
        same: Share of the answers that are torch's; None where there are none of torch.
        failed: Why it failed; empty if it did not.
    """

    decoder: str
    prompts: int
    stops: float
    seconds: list[float]
    first_token_seconds: float = 0.0
    new_tokens: int = 0
    peak_bytes: int = 0
    same: float | None = None
    failed: str = ""

    @property
    def rate(self) -> float:
        """Return new tokens per second."""
        return self.new_tokens / median(self.seconds)


def main() -> None:
    """Measure, write, and say which bars are missed.

    Raises:
        InputError: The settings or the model are bad.
    """
    args = parse_arguments(
        Args, prog="python -m experiments.benchmark_decoding", description=__doc__
    )
    from cat_jax.train.provenance import describe_environment

    packages = ("jax", "torch", "transformers", *(["llama-cpp-python"] if args.gguf else []))
    machine = describe_environment(packages)
    results: list[Result] = []
    for stops in args.stops:
        for prompts in args.prompts:
            results += measure(args, prompts, stops)
            write_results(args, machine, results, page(results, machine, args))
    print(page(results, machine, args), end="")
    missed = missed_bars(results)
    for line in missed:
        print(f"missed: {line}")
    sys.exit(1 if missed else 0)


def measure(args: Args, prompts: int, stops: float) -> list[Result]:
    """Give each decoder its turn, torch first."""
    models: dict[Decoder, str] = {"torch": args.model, "cat_jax": args.model}
    if args.gguf:
        models["llama.cpp"] = args.gguf
    results, reference = [], None
    for name, model in models.items():
        task = Task(name, model, prompts, args.new_tokens, stops, args.rounds, args.device)
        found = run_module("experiments.benchmarking.decoders", task)
        if isinstance(found, str):
            results.append(Result(name, prompts, stops, [], failed=found))
            continue
        timing = Timing(**found)
        if name == "torch":
            reference = timing.answers
        results.append(
            Result(
                name,
                prompts,
                stops,
                timing.seconds,
                timing.first_token_seconds,
                sum(map(len, timing.answers)),
                timing.peak_bytes,
                same_share(timing.answers, reference),
            )
        )
    return results


def same_share(
    answers: Sequence[Sequence[int]], reference: Sequence[Sequence[int]] | None
) -> float | None:
    """Return the share of the answers that are those of the reference."""
    if reference is None:
        return None
    pairs = zip(answers, reference, strict=True)
    return sum(list(a) == list(b) for a, b in pairs) / len(reference)


def missed_bars(results: Sequence[Result]) -> list[str]:
    """Return where this package is slower than torch, or says something else."""
    by_name = {(x.decoder, x.prompts, x.stops): x for x in results if x.seconds}
    missed = []
    for (name, prompts, stops), ours in by_name.items():
        theirs = by_name.get(("torch", prompts, stops))
        if name != "cat_jax" or theirs is None:
            continue
        where = f"{prompts} prompts, stops {stops:g}"
        if ours.rate < theirs.rate:
            ratio = ours.rate / theirs.rate
            missed.append(f"{where}: {ratio:.2f} of torch's tokens/s, to reach 1")
        if ours.same is not None and ours.same < LEAST_SAME:
            missed.append(f"{where}: {ours.same:.0%} of the answers are torch's")
    return missed


def page(results: Sequence[Result], machine: str, args: Args) -> str:
    """Return the page: what was measured where, and a table of the decoders."""
    from cat_jax.markdown import markdown_table

    columns = ["prompts", "stops", "decoder", "new tokens", "seconds (median, range)", "tokens/s"]
    rows = [_cells(result) for result in results]
    table = markdown_table([*columns, "first tokens, s", "peak GiB", "as torch"], rows, "right")
    return f"""# Greedy decoding

`python -m experiments.benchmark_decoding OUT --model FOLDER`: {Path(args.model).name}, prompts of
{SHORTEST} to {LONGEST} random tokens as one batch, up to {args.new_tokens} new tokens each. "stops"
is the share of the vocabulary that ends an answer, "first tokens" the time until every prompt has
one, "as torch" the share of answers that are torch's, token by token. llama.cpp decodes one prompt
after the other, of a file in GGUF.

{table}

{machine}
"""


def _cells(x: Result) -> list[str]:
    start = [str(x.prompts), f"{x.stops:g}", x.decoder]
    if not x.seconds:
        return [*start, "", f"failed: {x.failed}", "", "", "", ""]
    middle = median(x.seconds)
    return [
        *start,
        str(x.new_tokens),
        f"{middle:.2f} ({min(x.seconds):.2f} to {max(x.seconds):.2f})",
        f"{x.rate:.1f}",
        f"{x.first_token_seconds:.3f}",
        f"{x.peak_bytes / 2**30:.2f}",
        "" if x.same is None else f"{x.same:.0%}",
    ]


if __name__ == "__main__":
    sys.exit(exit_status(main))
