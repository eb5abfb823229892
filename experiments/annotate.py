"""Have an assistant annotate records by a causal prior; keep what passes the checks."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, Range
from experiments.command_line import exit_status, parse_arguments
from experiments.progress import record_bar
from experiments.workers import Workers, needs_beam

if TYPE_CHECKING:
    from cat_jax.annotation import (
        AnnotationFiles,
        AnswerCache,
        Client,
        Prices,
        Prior,
    )

Price = Annotated[float, Range(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Args(Workers):
    """What to annotate.

    Attributes:
        source: File, folder, or name such as hub:REPO:SPLIT (docs/data.md).
        prior: YAML file (docs/annotation.md), or math, choice, risk, regression or steps.
        out: JSONL file for the annotated records; OUT.rejects.jsonl has the others, and OUT.cache
            every answer, which is never asked for again.
        model: Name of the assistant on its server, or several.
        base_url: Address of an OpenAI-compatible API, ending in /v1; else OPENAI_BASE_URL.
        temperature: Of the assistant's sampling.
        max_tokens: Longest answer of the assistant.
        samples: Opinions of each assistant on each record.
        keep: Which dependencies of several opinions are kept: those that most name, or all.
        concurrency: Records that are asked about at a time.
        requests_per_minute: Most requests to start in a minute.
        price_in: Price of a million tokens that the assistant reads, in any currency.
        price_out: Price of a million tokens that it writes.
        max_cost: What may be spent; no question is asked that might exceed it.
        dry_run: Say what would be asked and what it costs, and ask nothing.
        batch_requests: Write the open questions to this file for a batch API, and ask nothing.
        batch_results: Take answers from this file of a batch API, and ask nothing.
        limit: Records to annotate, from the first; all where none is given.
        retry_rejects: Ask anew for what was rejected before.
        columns: Names of the columns whose fields are called otherwise (input=question).
    """

    source: Annotated[str, tyro.conf.Positional]
    prior: str
    out: str
    model: tuple[str, ...]
    base_url: str | None = None
    temperature: float = 0.0
    max_tokens: Count = 1024
    samples: Count = 1
    keep: Literal["majority", "intersection"] = "majority"
    concurrency: Count = 8
    requests_per_minute: Annotated[float, Range(gt=0)] | None = None
    price_in: Price | None = None
    price_out: Price | None = None
    max_cost: Price | None = None
    dry_run: bool = False
    batch_requests: str | None = None
    batch_results: str | None = None
    limit: Count | None = None
    retry_rejects: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if (self.price_in is None) != (self.price_out is None):
            raise InputError("give both --price-in and --price-out")
        if self.max_cost is not None and self.price_in is None:
            raise InputError("--max-cost needs the prices: give --price-in and --price-out")
        ways = {
            "--dry-run": self.dry_run,
            "--batch-requests": self.batch_requests is not None,
            "--batch-results": self.batch_results is not None,
            "--runner": self.runner is not None,
        }
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if len(chosen) > 1:
            raise InputError(f"{' and '.join(chosen)} exclude each other; give one")
        if self.runner is not None and (self.max_cost or self.requests_per_minute):
            raise InputError(
                "--max-cost and --requests-per-minute are kept by one process; leave out --runner"
            )

    @property
    def prices(self) -> "Prices | None":
        """Return the prices, if they are given."""
        from cat_jax.annotation import Prices

        if self.price_in is None or self.price_out is None:
            return None
        return Prices(self.price_in, self.price_out)


@dataclass(frozen=True)
class Work:
    """What a command line stands for.

    Attributes:
        args: The command line.
        prior: The prior.
        records: The records.
        clients: The assistants.
        files: Where outcomes go.
        cache: Where answers are.
    """

    args: Args
    prior: "Prior"
    records: Sequence[Any]
    clients: "list[Client]"
    files: "AnnotationFiles"
    cache: "AnswerCache"

    @property
    def asking(self) -> dict[str, Any]:
        """Return how often questions are asked."""
        return {"samples": self.args.samples, "retry_rejects": self.args.retry_rejects}


def main() -> None:
    """Annotate; the last line says how many records were rejected.

    Raises:
        InputError: The records, the prior or the settings are bad.
    """
    args = parse_arguments(Args, prog="python -m experiments.annotate", description=__doc__)
    from cat_jax.annotation import (
        AnnotationFiles,
        AnswerCache,
        ServerFailed,
        plan,
        read_prior,
    )
    from cat_jax.data.sources import read_records

    prior = read_prior(args.prior)
    records = list(islice(read_records(args.source, columns=args.columns), args.limit))
    files = AnnotationFiles(args.out, prior)
    work = Work(args, prior, records, make_clients(args), files, AnswerCache(files.cache))
    try:
        if args.dry_run:
            limits = {"prices": args.prices, "requests_per_minute": args.requests_per_minute}
            print(plan(records, prior, work.clients, cache=work.cache, **work.asking, **limits))
        elif args.batch_requests is not None:
            print(write_requests(work, args.batch_requests))
        elif args.batch_results is not None:
            print(take_results(work, args.batch_results))
        else:
            print(annotate_now(work))
    except ServerFailed as error:
        print(f"{error}; what was answered is kept: run it again to go on", file=sys.stderr)
        sys.exit(1)


def make_clients(args: Args) -> "list[Client]":
    """Return the assistants; those of a command that asks nothing need no server."""
    from cat_jax.annotation import OpenAIClient

    clients = [
        OpenAIClient(
            name,
            base_url=args.base_url,
            temperature=args.temperature,
            max_tokens=args.max_tokens,
            requests_per_minute=args.requests_per_minute,
        )
        for name in args.model
    ]
    if not (args.dry_run or args.batch_requests or args.batch_results):
        for client in clients:
            client.connect()
    return [*clients]


def write_requests(work: Work, path: str) -> str:
    """Write the open questions as a batch file."""
    from cat_jax.annotation import open_questions, write_batch

    questions = open_questions(
        work.records, work.prior, work.clients, cache=work.cache, **work.asking
    )
    number = write_batch(path, questions)
    return f"{number:,} requests are written: {path}"


def take_results(work: Work, path: str) -> str:
    """Take the answers of a batch, and write the outcomes that they allow."""
    from cat_jax.annotation import annotate_answered, open_questions, read_batch

    given = work.records, work.prior, work.clients
    results = read_batch(path, open_questions(*given, cache=work.cache, **work.asking), work.cache)
    left = 0
    with work.files as files:
        for outcome in annotate_answered(
            *given, work.cache, samples=work.args.samples, keep=work.args.keep
        ):
            if outcome is None:
                left += 1
            else:
                files.write(outcome)
    again = f"{left:,} records are open: write --batch-requests for them"
    return "\n".join([str(results), *([again] if left else []), summary(work.files)])


def annotate_now(work: Work) -> str:
    """Ask, and write each outcome as soon as those before it are there."""
    from cat_jax.annotation import Annotated, Budget, OverBudget, Prices, annotate_each

    args, done = work.args, Annotated()
    prices = args.prices
    budget = Budget(prices or Prices(0, 0), math.inf if args.max_cost is None else args.max_cost)
    said = []
    if args.runner is not None:
        said.append(answer_on_workers(work))
    spent = (lambda: f"{budget.spent:.2f} spent") if prices else str
    with work.files as files, record_bar(len(work.records), spent) as advance:
        try:
            for outcome in annotate_each(
                work.records,
                work.prior,
                [budget.limit(client) for client in work.clients],
                cache=work.cache,
                keep=args.keep,
                concurrency=args.concurrency,
                **work.asking,
            ):
                files.write(outcome)
                done.outcomes.append(outcome)
                advance()
        except OverBudget as error:
            left = len(work.records) - len(done.outcomes)
            said.append(f"stopped: {error}; {left:,} records are left")
    if prices is not None:
        said.append(f"{budget.spent:.2f} are spent")
    if args.samples * len(args.model) > 1:
        said.append(f"Krippendorff's alpha of the opinions: {done.alpha:.2f}")
    return "\n".join([*said, summary(work.files)])


def answer_on_workers(work: Work) -> str:
    """Have the workers of a Beam runner ask.

    Raises:
        InputError: Apache Beam is not installed.
    """
    try:
        from cat_jax.annotation.beam import answer_with_beam
    except ImportError as error:
        raise needs_beam(error) from error
    counted = answer_with_beam(
        work.records,
        work.prior,
        work.clients,
        work.files.cache.absolute(),
        runner_options=work.args.beam_options,
        concurrency=work.args.concurrency,
        **work.asking,
    )
    return f"workers: {', '.join(f'{number:,} {name}' for name, number in sorted(counted.items()))}"


def summary(files: "AnnotationFiles") -> str:
    """Return what was written."""
    accepted, rejected = files.counts
    return "\n".join(
        [
            f"{accepted} records are annotated: {files.out}",
            f"{rejected} are rejected{f': {files.rejects}' if rejected else ''}",
        ]
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
