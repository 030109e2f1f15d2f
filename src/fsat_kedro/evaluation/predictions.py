"""The clips of a split with their predicted probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fsat_kedro.evaluation.metrics import class_indices


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted class probabilities of the n clips of a split.

    Attributes:
        probabilities: (n, c); the rows of rejected clips are ignored.
        clips: fname, label, verified, status, length in samples; a row per clip.
        labels: names of the c classes.
        folds: (n,) fold that held the clip out, 0 if none did; None for test clips.
    """

    probabilities: np.ndarray
    clips: pd.DataFrame
    labels: Sequence[str]
    folds: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Name of the predictions in plots and on the page."""
        return "test" if self.folds is None else "out-of-fold"

    @property
    def is_usable(self) -> np.ndarray:
        """Mask of the clips that were not rejected, (n,) bool."""
        return (self.clips["status"] == "ok").to_numpy(bool)

    @property
    def is_labelled(self) -> np.ndarray:
        """Mask of the clips with a label, (n,) bool."""
        return self.clips["label"].notna().to_numpy(bool)

    @property
    def targets(self) -> np.ndarray:
        """Class indices, (n,) int64; −1 where the label is missing or none of the classes."""
        return class_indices(self.clips["label"], self.labels)
