"""Parse the command line; map errors to exit codes.

JAX is imported only where it is needed: ``--help`` and a wrong setting answer at once.
"""

import contextlib
import importlib
import io
import logging
import pkgutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

import configs
from cat_jax.config import AttentionDropout, Guidance, Pretrained, PretrainedLora, RunConfig
from cat_jax.errors import Diverged, InputError, Interrupted, SaveFailed, SettingError, name_hint
from cat_jax.files import check_name, check_writable
from experiments.compilation_cache import keep_programs
from experiments.mappings import REGISTRY

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
        InputError: No such configuration, or settings that cannot be.
    """
    arguments = list(arguments)
    is_named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments.pop(0) if is_named else default
    config = load_config(name)
    description += f"\n\nConfigs: {', '.join(config_names())}; {name} where none is named."
    if not is_named and {"-h", "--help"} & set(arguments):
        config, hint = with_all_settings(config, one_run=kind is RunConfig)
        description += hint
    return parse_arguments(
        tyro.conf.AvoidSubcommands[kind],
        prog=f"python -m {program} {name if is_named else '[CONFIG]'}",
        description=description,
        args=arguments,
        default=wrap(config),
    )


def parse_arguments(kind: type[Args], **options: Any) -> Args:
    """Parse with tyro; what a constructor refuses is an InputError, as from Python."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), REGISTRY:
            return tyro.cli(kind, **options)
    except SystemExit as stop:
        error = stop.__context__
        while error is not None and not isinstance(error, InputError):
            error = error.__context__
        if error is not None:
            raise error from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def with_all_settings(config: RunConfig, *, one_run: bool) -> tuple[RunConfig, str]:
    """Return a configuration with every section that others have, for help, and what it added.

    A regularizer is of one run; in a comparison it is a method that has one.
    """
    added = []
    if config.guidance is None:
        config = replace(config, guidance=Guidance())
        added.append("--guidance needs a config with guidance (cat, cat_lora)")
    if one_run and config.regularizer is None:
        config = replace(config, regularizer=AttentionDropout())
        added.append("--regularizer one with it (attention_dropout)")
    if type(config.model) is Pretrained:
        config = replace(config, model=PretrainedLora(**vars(config.model)))
        added.append("--model.lora one with adapters (sft_lora, cat_lora)")
    return config, f"\n{', '.join(added)}." if added else ""


def config_names() -> list[str]:
    """Return the names of the modules in ``configs``."""
    modules = pkgutil.iter_modules(configs.__path__)
    return sorted(module.name for module in modules if not module.ispkg)


def load_config(name: str) -> RunConfig:
    """Return ``CONFIG`` of the module ``configs.NAME``.

    Raises:
        InputError: No such configuration; the nearest name is suggested.
    """
    names = config_names()
    if name not in names:
        raise InputError(f"no config named {name!r}; {name_hint(name, names)}")
    return importlib.import_module(f"configs.{name}").CONFIG


def start_up(config: RunConfig) -> "Console":
    """Prepare the process before its first use of a device; return the console for its output.

    Only the primary process prints. What the library logs is printed too.

    Raises:
        InputError: The processes cannot connect.
    """
    from cat_jax.distributed import is_primary, join_processes
    from cat_jax.train.determinism import make_deterministic

    if config.train.deterministic:
        make_deterministic()
    if config.distributed:
        join_processes()
    return start_console(quiet=not is_primary())


def start_console(*, quiet: bool = False) -> "Console":
    """Return a console for the output of the process, and print there what the library logs."""
    from rich.console import Console

    console = Console(quiet=quiet)
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
        InputError: NAME is no name of a folder, OUT cannot be written to, or there is nothing to
            resume.
    """
    from etils import epath

    from cat_jax.train.workdir import is_occupied

    check_name(config.name, "--name")
    if not config.out.strip() or not config.out.isprintable():
        raise InputError(f"--out is {config.out!r}; give the folder in which to make OUT/NAME")
    if not config.resume:
        check_writable(config.out, "out")
    folder = epath.Path(config.out) / config.name
    if config.resume and not is_occupied(folder):
        raise InputError(f"nothing to resume: there is no run in {folder}; leave out --resume")
    return folder


@contextmanager
def interruptible(config: RunConfig) -> Iterator[None]:
    """Turn Ctrl-C in the block into Interrupted, which says what the output folder holds.

    While a run trains, Ctrl-C is honoured between two steps instead (``cat_jax.train.signals``).
    """
    begun_before = _has_run(config)
    try:
        yield
    except KeyboardInterrupt:
        from etils import epath

        if not _has_run(config) or (begun_before and not config.resume):
            message, resumable = "stopped; nothing was written", False
        else:
            message = f"stopped; {_kept(epath.Path(config.out) / config.name)}"
            resumable = True
        raise Interrupted(message, signal.SIGINT, resumable=resumable) from None


def _has_run(config: RunConfig) -> bool:
    from etils import epath

    return (epath.Path(config.out) / config.name / "config.json").is_file()


def _kept(folder: "epath.Path") -> str:
    """Say which steps of which runs below a folder are saved, as a clause."""
    from cat_jax.train.remains import saved_steps

    newest = {path: saved_steps(path)[-1:] for path in [folder, *sorted(folder.glob("seed-*/*"))]}
    kept = [
        f"step {steps[0]}" + ("" if path == folder else f" of {path.parent.name}/{path.name}")
        for path, steps in newest.items()
        if steps
    ]
    if not kept:
        return "no step was saved yet"
    return f"{', '.join(kept)} {'is' if len(kept) == 1 else 'are'} saved"


def exit_status(main: Callable[[], Any]) -> int:
    """Run ``main``; what a user can mend is one sentence on stderr instead of a traceback.

    Of several processes the primary one reports what stops all. One that fails by itself says so
    and ends at once: in order it would wait for the others, and they for it.
    """
    keep_programs()
    try:
        main()
    except InputError as error:
        return _input_error(error)
    except (Diverged, SaveFailed) as error:
        return _failure(f"error: {error}", 1)
    except Interrupted as error:
        hint = "; add --resume to continue" if error.resumable else ""
        return _failure(f"{error}{hint}", 128 + error.signum)
    except KeyboardInterrupt:
        return _failure("stopped", 128 + signal.SIGINT)
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
    return _failure(f"error: {_as_typed(error)}", 2)


def _as_typed(error: InputError) -> str:
    """Return the sentence; it names a setting as the command line spells it."""
    if not isinstance(error, SettingError):
        return str(error)
    return f"--{error.setting.replace('_', '-')} {error.problem}"


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
