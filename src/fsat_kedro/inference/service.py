"""Tagging for many: what a request may ask for, and its answer, whatever server receives it."""

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from io import BytesIO
from math import isnan
from pathlib import Path
from stat import S_ISREG
from threading import Lock
from time import monotonic
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile

from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import Sound, Tagger

SOUNDS_DIR = "FSAT_KEDRO_SOUNDS_DIR"
"""Environment variable with the folder whose files a server may read."""

_MAX_NAME_BYTES = 1000

_GROUP = 4
"""Sounds that are tagged together. Between two groups, work may stop, and other requests go on."""

Row = tuple[object, object]
"""A sound of a request, as it came: its `fname` and its `audio`."""


class Limits(NamedTuple):
    """What a server accepts. Environment variables set it, such as `FSAT_KEDRO_MAX_ROWS`.

    Attributes:
        max_rows: sounds of a request.
        max_megabytes: of a sound's file.
        max_seconds: of a sound that are used; the rest is not read.
        max_request_seconds: from a request to its answer. MLflow's server gives up after 60.
        max_request_megabytes: of a whole request, for `kedro serve`.
        max_requests: at the same time, for `kedro serve`.
    """

    max_rows: float = 100
    max_megabytes: float = 20
    max_seconds: float = 60
    max_request_seconds: float = 50
    max_request_megabytes: float = 32
    max_requests: float = 16

    @classmethod
    def from_environment(cls) -> "Limits":
        """Read the limits.

        Raises:
            InputError: a variable is not a positive number.
        """
        limits = {}
        for name, default in cls._field_defaults.items():
            variable = f"FSAT_KEDRO_{name.upper()}"
            text = os.environ.get(variable, str(default))
            try:
                limits[name] = float(text)
            except ValueError:
                limits[name] = 0
            if not limits[name] > 0:
                raise InputError(f"{variable} is {text!r}: set it to a positive number")
        return cls(**limits)


class TaggingService:
    """Tags the sounds of requests within limits, one small group after the other.

    Args:
        tagger: an ensemble that uses no more than `limits.max_seconds` of a sound.
        limits: of a request.
    """

    def __init__(self, tagger: Tagger, limits: Limits) -> None:
        self._limits = limits
        self._tagger = tagger
        self._tagger.prepare()
        # Some noise, so that the first request does not wait for what is compiled.
        self._tagger.tag([Sound("noise.wav", b64decode(noise_in_base64()))])
        self._turn = Lock()

    def tag(self, rows: Iterable[Row], *, ends: Callable[[], bool] = lambda: False) -> pd.DataFrame:
        """Tag the sounds of a request.

        A row is tagged or has a reason why not, whatever the others are. A request that takes
        longer than its limit ends after the group that is being tagged; the rows that are left have
        this as their reason.

        Args:
            rows: `fname` is the name of a sound's file, and `audio` the bytes of the file in
                base64. Without `audio`, `fname` is a path in the folder that the environment
                variable `FSAT_KEDRO_SOUNDS_DIR` names.
            ends: returns whether to stop, because nobody waits for the answer any more.

        Returns:
            The table of `Tagger.tag`, with None for what is missing; without rows, no columns.
        """
        started, left = monotonic(), list(rows)
        reason = self._refuse_rows(len(left))
        tables = []
        while left:
            # What is refused needs no time of its own.
            group, left = (left, []) if reason else (left[:_GROUP], left[_GROUP:])
            with self._turn:
                reason = reason or self._refuse_time(monotonic() - started, ends())
                tables.append(self._tagger.tag([self._sound(*row, reason) for row in group]))
        if not tables:
            return pd.DataFrame()
        tags = pd.concat(tables, ignore_index=True).astype(object)
        # JSON has no NaN.
        return tags.where(tags.notna(), None)

    def _refuse_rows(self, n_rows: int) -> str:
        """Return the reason why so many rows are not tagged; "" for none."""
        most = self._limits.max_rows
        return f"the request has {n_rows} rows, more than {most:g}" if n_rows > most else ""

    def _refuse_time(self, seconds: float, ends: bool) -> str:
        """Return the reason why no more rows are tagged after some seconds; "" for none."""
        most = self._limits.max_request_seconds
        if seconds > most:
            return f"the request took more than {most:g} s: send fewer sounds at once"
        return "the server stops" if ends else ""

    def _sound(self, fname: object, audio: object, reason: str) -> Sound:
        return _sound(fname, audio, reason, max_bytes=self._limits.max_megabytes * 1e6)


def noise_in_base64() -> str:
    """Return a short WAV file of noise, as a request has it."""
    file = BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 2000)
    soundfile.write(file, noise, 8000, format="WAV", subtype="PCM_16")
    return b64encode(file.getvalue()).decode()


def _sound(fname: object, audio: object, reason: str = "", *, max_bytes: float) -> Sound:
    """Return the sound of a row, or the reason why it must not or cannot be read."""
    if not isinstance(fname, str):
        return Sound("", b"", "its fname is not a string")
    # JSON may hold halves of characters, which no file name has.
    name = fname.encode(errors="backslashreplace").decode()
    if "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
        return Sound("", b"", f"its fname has a NUL, or more than {_MAX_NAME_BYTES} bytes")
    if reason:
        return Sound(name, b"", reason)
    too_large = f"its file is larger than {max_bytes / 1e6:g} MB"
    if isinstance(audio, str):
        if len(audio) * 3 // 4 - audio[-2:].count("=") > max_bytes:
            return Sound(name, b"", too_large)
        try:
            return Sound(Path(name).name, b64decode(audio, validate=True))
        except ValueError as error:
            return Sound(name, b"", f"its audio is not in base64: {error}")
    # Pandas has NaN for what a row lacks and another has.
    if audio is not None and not (isinstance(audio, float) and isnan(audio)):
        return Sound(name, b"", "its audio is not a string")
    folder = os.environ.get(SOUNDS_DIR)
    if folder is None:
        return Sound(name, b"", f"it has no audio, and the server does not set {SOUNDS_DIR}")
    root = os.path.realpath(folder)
    path = Path(os.path.realpath(Path(root, name)))
    if not path.is_relative_to(root):
        return Sound(name, b"", f"not below the server's {SOUNDS_DIR}")
    try:
        status = path.stat()
    except OSError:  # It does not exist, or a name is too long.
        status = None
    if status is None or not S_ISREG(status.st_mode):
        return Sound(name, b"", f"not a file in the server's {SOUNDS_DIR}")
    if status.st_size > max_bytes:
        return Sound(name, b"", too_large)
    return Sound(name, str(path))
