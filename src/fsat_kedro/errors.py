"""Errors of more than one module."""


class InputError(ValueError):
    """Data or settings that the project cannot work with.

    Shown to the user as one message, without a traceback: it names the thing and the remedy.
    """


class UnreadableError(Exception):
    """A file that can't be read; the message is the reason."""
