"""From the words on a command line to an experiment, and from exceptions to exit statuses."""

import difflib
import importlib
import pkgutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

import configs
from cat_jax.config import Experiment, Finetune
from cat_jax.errors import InputError
from cat_jax.train.loop import Diverged, Interrupted

Config = TypeVar("Config", Experiment, Finetune)


def parse_config(
    kind: type[Config], arguments: Sequence[str], *, program: str, default: str, description: str
) -> Config:
    """Reads ``[CONFIG] [--section.field value ...]``; leaves with status 2 on an unknown field.

    Args:
        kind: of the configs that the program takes.
        arguments: of the command line.
        program: module that was called.
        default: config that is meant where none is named.
        description: of the program.

    Raises:
        InputError: no such config.
    """
    arguments = list(arguments)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else default
    return tyro.cli(
        tyro.conf.AvoidSubcommands[kind],
        prog=f"python -m {program} {name}",
        description=f"{description}\nConfigs: {', '.join(config_names(kind))}.",
        args=arguments,
        default=load_config(name, kind),
    )


def config_names(kind: type[Experiment | Finetune]) -> list[str]:
    """The modules of the package ``configs`` whose ``CONFIG`` is of this kind."""
    names = (module.name for module in pkgutil.iter_modules(configs.__path__))
    return sorted(name for name in names if isinstance(_config(name), kind))


def load_config(name: str, kind: type[Config]) -> Config:
    """``CONFIG`` of the module ``configs.NAME``.

    Raises:
        InputError: no such config; suggests the nearest name.
    """
    names = config_names(kind)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise InputError(f"no config named {name!r}; {hint}")
    return _config(name)


def _config(name: str) -> Any:
    return importlib.import_module(f"configs.{name}").CONFIG


def exit_status(main: Callable[[], None]) -> int:
    """Runs ``main``; what a user can mend is one sentence on stderr instead of a traceback."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"{error}; add --resume to continue", file=sys.stderr)
        return 128 + error.signum
    except KeyboardInterrupt:  # between two trainings
        print("stopped; finished runs are saved, add --resume to continue", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0
