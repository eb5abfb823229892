"""Have an assistant annotate records by a causal prior; keep what passes the checks."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import tyro

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges
from experiments.command_line import exit_status, parse_arguments


@dataclass(frozen=True)
class Args:
    """What to annotate.

    Attributes:
        source: File, folder, or name such as hub:REPO:SPLIT (docs/data.md).
        prior: YAML file (docs/annotation.md), or math, choice, risk, regression or steps.
        out: JSONL file for the annotated records; OUT.rejects.jsonl has the others, and OUT.cache
            every answer, which is never asked for again.
        model: Name of the assistant on its server.
        base_url: Address of an OpenAI-compatible API, ending in /v1; else OPENAI_BASE_URL.
        temperature: Of the assistant's sampling.
        max_tokens: Longest answer of the assistant.
        concurrency: Questions that are open at a time.
        limit: Records to annotate, from the first; all where none is given.
        retry_rejects: Ask anew for what was rejected before.
        columns: Names of the columns whose fields are called otherwise (input=question).
    """

    source: Annotated[str, tyro.conf.Positional]
    prior: str
    out: str
    model: str
    base_url: str | None = None
    temperature: float = 0.0
    max_tokens: Count = 1024
    concurrency: Count = 8
    limit: Count | None = None
    retry_rejects: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        check_ranges(self, "")


def main() -> None:
    """Annotate; the last line says how many records were accepted and rejected.

    Raises:
        InputError: The records, the prior or the settings are bad.
    """
    args = parse_arguments(Args, prog="python -m experiments.annotate", description=__doc__)
    from cat_jax.annotation import OpenAIClient, ServerFailed, read_prior
    from cat_jax.data.sources import read_records

    prior = read_prior(args.prior)
    records = read_records(args.source, columns=args.columns)
    client = OpenAIClient(
        args.model,
        base_url=args.base_url,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
    )
    try:
        for line in write_outcomes(args, records, prior, client):
            print(line)
    except ServerFailed as error:
        print(f"{error}; what was answered is kept: run it again to go on", file=sys.stderr)
        sys.exit(1)


def write_outcomes(args: Args, records: Any, prior: Any, client: Any) -> Iterator[str]:
    """Write each outcome as soon as those before it are there; yield what to say at the end.

    Raises:
        InputError: The files cannot be written.
        ServerFailed: The assistant cannot be asked.
    """
    from cat_jax.annotation import AnswerCache, annotate_each
    from cat_jax.data.sources import training_record_fields

    out = Path(args.out)
    rejects = out.with_name(f"{out.name}.rejects.jsonl")
    cache = out.with_name(f"{out.name}.cache")
    if out.exists() and not cache.exists():
        raise InputError(f"{out} is there already and is not from here; choose another --out")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        accepted_file, rejected_file = out.open("w"), rejects.open("w")
    except OSError as error:
        raise InputError(f"--out: cannot write {out} ({error.strerror})") from error
    counts = [0, 0]
    with accepted_file, rejected_file:
        for outcome in annotate_each(
            islice(records, args.limit),
            prior,
            client,
            cache=AnswerCache(cache),
            concurrency=args.concurrency,
            retry_rejects=args.retry_rejects,
        ):
            fields = training_record_fields(outcome.record)
            about = {"model": client.model, "prior": prior.sha256, "attempts": outcome.attempts}
            if outcome.accepted:
                _write(accepted_file, fields | {"annotation": about})
            else:
                failed = {"reasons": outcome.reasons, "reply": outcome.reply}
                _write(rejected_file, fields | {"annotation": about} | failed)
            counts[not outcome.accepted] += 1
    yield f"{counts[0]} records are annotated: {out}"
    yield f"{counts[1]} are rejected{f': {rejects}' if counts[1] else ''}"


def _write(file: TextIO, fields: Mapping[str, Any]) -> None:
    file.write(json.dumps(fields) + "\n")
    file.flush()


if __name__ == "__main__":
    sys.exit(exit_status(main))
