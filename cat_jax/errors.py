"""Errors that command lines turn into a sentence and an exit status."""


class InputError(ValueError):
    """Bad input: the message says what is wrong, where, and how to mend it (exit status 2)."""


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite (exit status 1)."""


class SaveFailed(RuntimeError):
    """A checkpoint or log could not be written; names the last good checkpoint (exit status 1)."""


class Interrupted(RuntimeError):
    """A signal asked to stop; the message says what is saved (exit status 128 + signal)."""

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum
