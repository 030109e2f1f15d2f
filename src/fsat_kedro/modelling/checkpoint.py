"""The checkpoint of a stage: one file from which an interrupted training resumes."""

import json
import logging
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import fsspec
import numpy as np

from fsat_kedro import files

logger = logging.getLogger(__name__)

_ARRAYS = ("weights", "optimizer", "best")


@dataclass(frozen=True)
class StageState:
    """A stage after an epoch.

    Attributes:
        rows: rows of its history so far.
        weights: weights of the network.
        optimizer: variables of the optimizer.
        best: weights of the network after its best epoch; empty with selection `last`.
    """

    rows: list[dict]
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """The latest state of one stage, in an `.npz` file at a local path or url."""

    path: str | Path

    def save(self, fingerprint: str, state: StageState) -> None:
        """Replace the state that was saved before; at a url a failure is only a warning.

        `fingerprint` is a digest of everything that determines the stage.
        """
        header = json.dumps({"fingerprint": fingerprint, "rows": state.rows})
        arrays = {"header": np.array(header)}
        for name in _ARRAYS:
            arrays |= {f"{name}_{i}": array for i, array in enumerate(getattr(state, name))}
        try:
            with files.open_atomic(self.path) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type] # It sees allow_pickle in them.
        except Exception as error:  # Stores raise errors of many types.
            if not files.is_url(self.path):
                raise
            logger.warning("The checkpoint could not be saved, training goes on: %s", error)

    def load(self, fingerprint: str) -> StageState | None:
        """Return the latest state; None without one, or if its fingerprint is another.

        A damaged file counts as none, with a warning.
        """
        if not files.exists(self.path):
            return None
        with fsspec.open(str(self.path), "rb") as file:
            content = BytesIO(file.read())
        try:
            return _parse(content, fingerprint)
        except Exception as error:  # Zip, NumPy and JSON raise errors of many types.
            logger.warning("%s is damaged, so the stage starts anew: %s", self.path, error)
            return None

    def remove(self) -> None:
        """Remove the file, if it exists."""
        files.remove(self.path)


def _parse(content: BytesIO, fingerprint: str) -> StageState | None:
    with np.load(content) as arrays:
        header = json.loads(str(arrays["header"]))
        if header["fingerprint"] != fingerprint:
            return None
        lists = {
            name: [arrays[key] for key in arrays.files if key.startswith(f"{name}_")]
            for name in _ARRAYS
        }
    return StageState(header["rows"], **lists)
