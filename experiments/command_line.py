"""From the words on a command line to an experiment, and from exceptions to exit statuses."""

import difflib
import importlib
import pkgutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import tyro
from rich.console import Console

import configs
from cat_jax.config import Experiment, Finetune
from cat_jax.distributed import (
    LOST,
    RESTART,
    CollectiveInputError,
    end_alone,
    first_line,
    is_primary,
    join_processes,
    is_peer_loss,
)
from cat_jax.errors import InputError
from cat_jax.train.checkpoint import SaveFailed
from cat_jax.train.determinism import make_deterministic
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


def start_up(config: Experiment | Finetune) -> Console:
    """What comes before the first use of a device; gives the console, silent but in the first.

    Raises:
        InputError: the processes cannot meet.
    """
    if config.train.deterministic:
        make_deterministic()
    if config.distributed:
        join_processes()
    return Console(quiet=not is_primary())


def exit_status(main: Callable[[], None]) -> int:
    """Runs ``main``; what a user can mend is one sentence on stderr instead of a traceback.

    Of several processes the first says what stops all. One that stops for a reason of its own
    says so and ends at once: in order it would wait for the others, and they for it.
    """
    try:
        main()
    except CollectiveInputError as error:
        return _failure(f"error: {error}", 2)
    except InputError as error:
        if jax.distributed.is_initialized():
            end_alone(str(error), 2)
        return _failure(f"error: {error}", 2)
    except (Diverged, SaveFailed) as error:
        return _failure(f"error: {error}", 1)
    except Interrupted as error:
        return _failure(f"{error}; add --resume to continue", 128 + error.signum)
    except KeyboardInterrupt:  # between two trainings
        sentence = "stopped; finished runs are saved, add --resume to continue"
        return _failure(sentence, 128 + signal.SIGINT)
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if is_peer_loss(error):
            end_alone(f"{LOST} ({first_line(error)}); {RESTART}", 1)
        end_alone(traceback.format_exc(), 1)
    return 0


def _failure(sentence: str, status: int) -> int:
    if not jax.distributed.is_initialized() or is_primary():
        print(sentence, file=sys.stderr)
    return status
