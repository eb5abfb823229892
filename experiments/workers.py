"""Options of commands that can run on the workers of an Apache Beam runner."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cat_jax.errors import InputError
from cat_jax.ranges import Count, check_ranges


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where the work is done.

    Attributes:
        runner: Runner of Apache Beam, such as DirectRunner, to work with several workers.
        workers: Processes of the DirectRunner on this machine.
        runner_options: Further options of the Beam pipeline (project=mine region=us-central1).
    """

    runner: str | None = None
    workers: Count = 1
    runner_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_ranges(self, "")
        if self.workers > 1 and self.runner != "DirectRunner":
            raise InputError(
                "--workers are processes of --runner DirectRunner; for other runners name theirs "
                "with --runner-options"
            )
        if self.runner_options and self.runner is None:
            raise InputError("--runner-options are of a --runner; name one")

    @property
    def beam_options(self) -> dict[str, Any]:
        """Return the options of the pipeline."""
        options: dict[str, Any] = {"runner": self.runner, **self.runner_options}
        if self.workers > 1:
            options |= {
                "direct_num_workers": self.workers,
                "direct_running_mode": "multi_processing",
            }
        return options


def needs_beam(error: ImportError) -> InputError:
    """Return what to say where Apache Beam is missing."""
    return InputError(f"--runner needs Apache Beam ({error}); pip install 'cat-jax[beam]'")
