"""Runs that are extended to more steps than they were begun with."""

from collections.abc import Mapping
from typing import Any

from cat_jax.errors import InputError

LENGTHS = ("steps", "epochs")
"""Fields of ``Training`` for the length of a run."""


def is_longer(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether settings of a run differ only in that it is longer.

    Args:
        old: Settings that the run was begun with, as JSON values.
        new: Settings to go on with; what ``old`` has besides is not compared.
    """
    known = {name: value for name, value in old.items() if name in new}
    if known.keys() != new.keys() or "train" not in new:
        return False
    before, now = _length(old), _length(new)
    if before.keys() != now.keys() or _of_any_length(known) != _of_any_length(new):
        return False
    return any(now[name] > before[name] for name in now)


def check_extendable(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Check that the steps so far are those of the longer run.

    Args:
        name: Name of the run's folder, for the message.
        old: Settings that it was begun with.
        new: Settings of the longer run.

    Raises:
        InputError: A schedule of theirs depends on the number of steps.
    """
    reason = _length_matters(new)
    if reason is not None:
        (unit, before), (_, now) = *_length(old).items(), *_length(new).items()
        raise InputError(
            f"{name} cannot be extended from {before:g} to {now:g} {unit}, because {reason}; "
            "choose another --name, and to train on from here give the model in "
            f"{name} as --model.name"
        )


def _length_matters(settings: Mapping[str, Any]) -> str | None:
    optimizer, guidance = settings["optimizer"], settings["guidance"]
    if optimizer["schedule"] != "constant":
        return f"its learning rate has ended (optimizer.schedule is {optimizer['schedule']})"
    if optimizer["warmup"] and optimizer["warmup_steps"] is None:
        return "its warm-up is a share of the steps (give optimizer.warmup_steps)"
    if guidance is not None and guidance["schedule"] in ("linear", "cosine"):
        return f"its guidance has ended (guidance.schedule is {guidance['schedule']})"
    return None


def _length(settings: Mapping[str, Any]) -> dict[str, float]:
    return {n: x for n, x in settings["train"].items() if n in LENGTHS and x is not None}


def _of_any_length(settings: Mapping[str, Any]) -> dict[str, Any]:
    train = {name: value for name, value in settings["train"].items() if name not in LENGTHS}
    return _given({**settings, "train": train})


def _given(value: Any) -> Any:
    """Leave out what is None: a run of before there was a setting was made without it."""
    if not isinstance(value, dict):
        return value
    return {name: _given(item) for name, item in value.items() if item is not None}
