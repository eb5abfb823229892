"""Align a data set once and write it as shards, which train without being held in memory."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from cat_jax.ranges import Count, Seed
from experiments.command_line import exit_status, parse_arguments
from experiments.reading import Model, Train
from experiments.workers import Workers, needs_beam


@dataclass(frozen=True)
class Packed(Train):
    """How training will read the shards; it is given the same settings.

    Attributes:
        pack: Pack several records of a shard into a sequence of up to max_length tokens.
    """

    pack: bool = False


@dataclass(frozen=True, kw_only=True)
class Args(Workers):
    """What to prepare.

    Attributes:
        source: File, folder, or name such as hub:REPO:SPLIT (docs/data.md).
        out: Folder or gs:// path for the shards.
        model: Whose tokenizer and chat template.
        train: How training will read the shards.
        seed: Seed of the packing.
        records_per_shard: Records that are in memory at a time, and make one shard.
        columns: Names of the columns whose fields are called otherwise (input=question).
        template_options: Variables of the chat template (enable_thinking=false).
    """

    source: Annotated[str, tyro.conf.Positional]
    out: Annotated[str, tyro.conf.Positional]
    model: Model
    train: Packed = field(default_factory=Packed)
    seed: Seed = 0
    records_per_shard: Count = 8192
    columns: Mapping[str, str] = field(default_factory=dict)
    template_options: Mapping[str, Any] = field(default_factory=dict)


def main() -> None:
    """Prepare the data.

    Raises:
        InputError: Records or tokenizer cannot be read, or the shards cannot be written.
    """
    args = parse_arguments(Args, prog="python -m experiments.prepare_data", description=__doc__)
    from cat_jax.train.setup import make_tokenizer, resolve_start

    settings: dict[str, Any] = {
        "max_length": args.train.max_length,
        "match": args.train.match,
        "pack": args.train.pack,
        "seed": args.seed,
        "columns": args.columns,
        "template_options": args.template_options,
        "records_per_shard": args.records_per_shard,
    }
    tokenizer = make_tokenizer(resolve_start(args.model.name), [])
    prepare = prepare_here if args.runner is None else prepare_with_workers
    print(prepare(args, tokenizer, settings))
    print(f"train on it: python -m experiments.finetune --data.train {args.out} ...")


def prepare_here(args: Args, tokenizer: Any, settings: Mapping[str, Any]) -> Any:
    """Prepare in this process and show how many records are done."""
    from rich.console import Console

    from cat_jax.data.shards import prepare_data

    with Console(stderr=True, highlight=False).status("0 records") as status:

        def show(records: int) -> None:
            status.update(f"{records:,} records")

        return prepare_data(args.source, args.out, tokenizer, progress=show, **settings)


def prepare_with_workers(args: Args, tokenizer: Any, settings: Mapping[str, Any]) -> Any:
    """Prepare with a runner of Apache Beam.

    Raises:
        InputError: Apache Beam is not installed.
    """
    try:
        from cat_jax.data.shards.beam import prepare_data_with_beam
    except ImportError as error:
        raise needs_beam(error) from error
    return prepare_data_with_beam(
        args.source, args.out, tokenizer, runner_options=args.beam_options, **settings
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
