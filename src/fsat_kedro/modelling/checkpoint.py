"""What a stage needs to go on where it was interrupted, in one file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsat_kedro.files import replacing


@dataclass(frozen=True)
class StageState:
    """A stage after an epoch.

    Attributes:
        rows: of its history so far.
        weights: of the network.
        optimiser: its variables.
        best: the network's weights after its best epoch; empty where the last ones count.
    """

    rows: list[dict]
    weights: list[np.ndarray]
    optimiser: list[np.ndarray]
    best: list[np.ndarray]


class Checkpoint:
    """The latest state of one stage.

    Args:
        path: of an `.npz` file.
        fingerprint: of all that the stage is made of. What another one left is no use.
        send: called with the path whenever a state is saved.
    """

    def __init__(
        self, path: Path, fingerprint: str, send: Callable[[Path], None] | None = None
    ) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._send = send

    def save(self, state: StageState) -> None:
        """Write a state in place of the one before."""
        header = {"fingerprint": self._fingerprint, "rows": state.rows}
        arrays = {"header": np.array(json.dumps(header))}
        for name in ("weights", "optimiser", "best"):
            for index, array in enumerate(getattr(state, name)):
                arrays[f"{name}_{index}"] = array
        with replacing(self._path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
        if self._send is not None:
            self._send(self._path)

    def load(self) -> StageState | None:
        """The state that was saved last; None if there is none of this very stage."""
        if not self._path.is_file():
            return None
        with np.load(self._path) as arrays:
            header = json.loads(str(arrays["header"]))
            if header["fingerprint"] != self._fingerprint:
                return None
            lists = {
                name: [arrays[key] for key in arrays.files if key.startswith(f"{name}_")]
                for name in ("weights", "optimiser", "best")
            }
        return StageState(header["rows"], **lists)
