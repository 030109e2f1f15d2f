"""Errors that more than one module raises."""


class InputError(ValueError):
    """Data or settings that the project cannot work with.

    The user sees its message without a traceback, so it names the problem and the remedy.
    """


class UnreadableError(Exception):
    """A file that cannot be read; the message is the reason."""
