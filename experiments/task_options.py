"""The settings of each task that a command line names are options of its name."""

from collections.abc import Mapping, Sequence
from dataclasses import field, make_dataclass
from typing import Any, TypeVar

from cat_jax.tasks import Task
from experiments.command_line import parse_arguments

Args = TypeVar("Args")


def option_values(arguments: Sequence[str], option: str) -> list[str]:
    """Return what an option is given, before the command line can be parsed."""
    return [
        following if argument == option else argument.removeprefix(f"{option}=")
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True)
        if argument == option or argument.startswith(f"{option}=")
    ]


def parse_with_tasks(
    kind: type[Args], tasks: Mapping[str, Task], arguments: Sequence[str], **options: Any
) -> tuple[Args, dict[str, Task]]:
    """Parse arguments and the settings of tasks (``--stg.test-records 200``).

    Args:
        kind: A frozen dataclass to parse.
        tasks: The tasks by name, with the settings that they have where none are given.
        arguments: Command line arguments.
        options: Of ``parse_arguments``.
    """
    fields: list[Any] = [(name, type(task), field(default=task)) for name, task in tasks.items()]
    extended = make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    extended.__doc__ = kind.__doc__
    args = parse_arguments(extended, args=arguments, **options)
    return args, {name: getattr(args, name) for name in tasks}
