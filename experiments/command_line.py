"""Parse the command line; map errors to exit codes.

JAX is imported only where it is needed: ``--help`` and a wrong setting answer at once.
"""

import difflib
import importlib
import logging
import pkgutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

import configs
from cat_jax.config import Guidance, Pretrained, PretrainedLora, RunConfig
from cat_jax.errors import Diverged, InputError, Interrupted, SaveFailed

if TYPE_CHECKING:
    from etils import epath
    from rich.console import Console

Args = TypeVar("Args")


def parse_config(
    kind: type[Args],
    arguments: Sequence[str],
    *,
    program: str,
    default: str,
    description: str,
    wrap: Callable[[RunConfig], Args],
) -> Args:
    """Parse ``[CONFIG] [--section.field value ...]``; exit with status 2 on an unknown field.

    Args:
        kind: What to parse: ``RunConfig``, or a dataclass around one.
        arguments: Command line arguments.
        program: Module that was called.
        default: Configuration where none is named.
        description: Description of the program.
        wrap: Makes the defaults of ``kind`` from a configuration.

    Raises:
        InputError: No such configuration.
    """
    arguments = list(arguments)
    is_named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments.pop(0) if is_named else default
    config = load_config(name)
    description += f"\n\nConfigs: {', '.join(config_names())}; {name} where none is named."
    if not is_named and {"-h", "--help"} & set(arguments):
        config, hint = with_all_settings(config)
        description += hint
    return tyro.cli(
        tyro.conf.AvoidSubcommands[kind],
        prog=f"python -m {program} {name if is_named else '[CONFIG]'}",
        description=description,
        args=arguments,
        default=wrap(config),
    )


def with_all_settings(config: RunConfig) -> tuple[RunConfig, str]:
    """Return a configuration with every section that others have, for help, and what it added."""
    added = []
    if config.guidance is None:
        config = replace(config, guidance=Guidance())
        added.append("--guidance needs a config with guidance (cat, cat_lora)")
    if type(config.model) is Pretrained:
        config = replace(config, model=PretrainedLora(**vars(config.model)))
        added.append("--model.lora one with adapters (sft_lora, cat_lora)")
    return config, f"\n{', '.join(added)}." if added else ""


def config_names() -> list[str]:
    """Return the names of the modules in ``configs``."""
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def load_config(name: str) -> RunConfig:
    """Return ``CONFIG`` of the module ``configs.NAME``.

    Raises:
        InputError: No such configuration; the nearest name is suggested.
    """
    names = config_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise InputError(f"no config named {name!r}; {hint}")
    return importlib.import_module(f"configs.{name}").CONFIG


def start_up(config: RunConfig) -> "Console":
    """Prepare the process before its first use of a device; return the console for its output.

    Only the primary process prints. What the library logs is printed too.

    Raises:
        InputError: The processes cannot connect.
    """
    from rich.console import Console

    from cat_jax.distributed import is_primary, join_processes
    from cat_jax.train.determinism import make_deterministic

    if config.train.deterministic:
        make_deterministic()
    if config.distributed:
        join_processes()
    console = Console(quiet=not is_primary())
    logger = logging.getLogger("cat_jax")
    logger.handlers = [PrintHandler(console)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return console


class PrintHandler(logging.Handler):
    """Prints log records as plain sentences."""

    def __init__(self, console: "Console"):
        """Take the console to print to."""
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message; text from data is no markup."""
        say(self._console, self.format(record))


def say(console: "Console", sentence: str) -> None:
    """Print a sentence as it is."""
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def output_folder(config: RunConfig) -> "epath.Path":
    """Return the output folder OUT/NAME.

    Raises:
        InputError: There is nothing to resume.
    """
    from etils import epath

    from cat_jax.train.workdir import CONFIG_FILE

    folder = epath.Path(config.out) / config.name
    if config.resume and not (folder / CONFIG_FILE).is_file():
        raise InputError(
            f"nothing to resume: {folder / CONFIG_FILE} does not exist; leave out --resume"
        )
    return folder


def exit_status(main: Callable[[], Any]) -> int:
    """Run ``main``; what a user can mend is one sentence on stderr instead of a traceback.

    Of several processes the primary one reports what stops all. One that fails by itself says so
    and ends at once: in order it would wait for the others, and they for it.
    """
    try:
        main()
    except InputError as error:
        return _input_error(error)
    except (Diverged, SaveFailed) as error:
        return _failure(f"error: {error}", 1)
    except Interrupted as error:
        return _failure(f"{error}; add --resume to continue", 128 + error.signum)
    except KeyboardInterrupt:  # between two runs
        sentence = "stopped; finished runs are saved, add --resume to continue"
        return _failure(sentence, 128 + signal.SIGINT)
    except Exception as error:
        if not _is_distributed():
            raise
        from cat_jax import distributed

        if distributed.is_peer_loss(error):
            lost = f"{distributed.LOST} ({distributed.first_line(error)}); {distributed.RESTART}"
            distributed.end_alone(lost, 1)
        distributed.end_alone(traceback.format_exc(), 1)
    return 0


def _input_error(error: InputError) -> int:
    if _is_distributed():
        from cat_jax.distributed import CollectiveInputError, end_alone

        if not isinstance(error, CollectiveInputError):
            end_alone(str(error), 2)
    return _failure(f"error: {error}", 2)


def _failure(sentence: str, status: int) -> int:
    if _is_distributed():
        from cat_jax.distributed import is_primary

        if not is_primary():
            return status
    print(sentence, file=sys.stderr)
    return status


def _is_distributed() -> bool:
    """Tell whether this is one of several processes; without JAX it is not."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized()
