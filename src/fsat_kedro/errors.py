"""The error for what a user can mend: its message names the thing and the remedy."""


class InputError(ValueError):
    """Data or settings that the project cannot work with.

    Shown to the user as one message, without a traceback.
    """
