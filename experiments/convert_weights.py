"""Convert a model between a Hugging Face folder (safetensors) and an orbax folder, bit for bit.

The orbax folder holds the same config.json and tokenizer files, and the parameters of CausalLM in
params/, with layers stacked. The direction follows from what SOURCE holds. With an adapter the
target is a Hugging Face folder with the adapter merged into the weights.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cat_jax.config import Dtype
from experiments.command_line import exit_status


@dataclass(frozen=True)
class Args:
    """What to convert.

    Attributes:
        source: Hugging Face folder or hub name, orbax folder written by this command, PEFT folder,
            or folder of a run.
        target: Folder to write; must not exist.
        adapter: PEFT folder to merge into the weights of SOURCE.
        base: Base model, where SOURCE is an adapter; None takes the one that it names.
        dtype: Dtype of a Hugging Face folder's weights; None keeps the source's.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    adapter: Path | None = None
    base: str | None = None
    dtype: Dtype | None = None


def main() -> None:
    """Convert what the command line names.

    Raises:
        InputError: See ``cat_jax.models.convert_weights``.
    """
    args = tyro.cli(Args, prog="python -m experiments.convert_weights", description=__doc__)
    from cat_jax.models import convert_weights

    convert_weights(
        args.source, args.target, adapter=args.adapter, base=args.base, dtype=args.dtype
    )
    print(f"wrote {args.target}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
