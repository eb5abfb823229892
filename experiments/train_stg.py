"""Train a plain baseline and a CAT model on the Spurious Token Game and compare them.

``experiments.compare`` with the game as its default.
"""

import sys

from experiments import compare
from experiments.command_line import exit_status


def main() -> None:
    """Run the comparison that the command line describes."""
    compare.main("experiments.train_stg", "stg_tiny", (__doc__ or "").partition("\n")[0])


if __name__ == "__main__":
    sys.exit(exit_status(main))
