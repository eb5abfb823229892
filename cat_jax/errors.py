"""The one exception that command lines turn into a sentence and exit status 2."""


class InputError(ValueError):
    """Bad input: the message says what is wrong, where, and how to mend it."""
