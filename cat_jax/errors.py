"""Errors that command lines turn into a sentence and an exit status."""

import difflib
from collections.abc import Collection


class InputError(ValueError):
    """Bad input: the message says what is wrong, where, and how to mend it (exit status 2)."""


def name_hint(name: str, known: Collection[str]) -> str:
    """Return a clause for the message about an unknown name: the nearest one, or all there are."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


class SettingError(InputError):
    """A setting that cannot be what it is.

    Attributes:
        setting: Its name from the top of the configuration, such as ``train.batch_size``.
        problem: The rest of the sentence.
    """

    def __init__(self, setting: str, problem: str):
        """Join name and problem to the message."""
        super().__init__(f"{setting} {problem}")
        self.setting = setting
        self.problem = problem

    def __reduce__(self):
        return SettingError, (self.setting, self.problem)


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite (exit status 1)."""


class SaveFailed(RuntimeError):
    """A checkpoint or log could not be written; names the last good checkpoint (exit status 1)."""


class Interrupted(RuntimeError):
    """A signal asked to stop; the message says what is saved (exit status 128 + signal).

    Attributes:
        signum: The signal.
        resumable: Whether there is something to continue.
    """

    def __init__(self, message: str, signum: int, *, resumable: bool = True):
        super().__init__(message)
        self.signum = signum
        self.resumable = resumable
