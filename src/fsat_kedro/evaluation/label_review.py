"""Doubtful labels of training clips one by one, with their sounds, and what is decided of them."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.data.label_corrections import (
    find_corrections,
    format_corrections,
    merge_corrections,
)
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.data.raw_files import normalize_filename, printable
from fsat_kedro.errors import InputError
from fsat_kedro.evaluation.label_issues import find_label_issues
from fsat_kedro.evaluation.misclassified import find_exemplars
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.files import open_atomic

_MAX_SECONDS = 30

Decisions = dict[str, tuple[str, str]]
"""Correct label ("" to drop the clip) and note, by file name."""


@dataclass(frozen=True, eq=False)
class LabelReview:
    """The doubtful labels of a training.

    Attributes:
        predictions: out-of-fold.
        audio: item i is the clip of row i, (n_i,) at 44.1 kHz.
        raw_dir: folder that corrections are written to; None if it is not known or not there.
        decided: the decisions that are made here; whoever reviews adds to them.
    """

    predictions: Predictions
    audio: RaggedArray
    raw_dir: Path | None
    decided: Decisions = field(default_factory=dict)

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The rows of `find_label_issues` for which another class is more probable, worst first.

        Those that the run has read a correction of are left out, and so are names that no table
        can contain.
        """
        table = find_label_issues(self.predictions)
        doubtful = (table["issue"] | (table["quality"] < 0.5)) & (table["correction"] == "")
        writable = table["fname"].map(printable) == table["fname"]
        return table[doubtful & writable].reset_index(drop=True)

    @cached_property
    def exemplars(self) -> dict[str, int]:
        """The row of each class's exemplar."""
        return dict(zip(self.predictions.labels, find_exemplars(self.predictions), strict=True))

    def sound(self, row: int) -> np.ndarray:
        """Return the beginning of a clip, (n,) float32 at 44.1 kHz."""
        return np.array(self.audio[row][: _MAX_SECONDS * SAMPLE_RATE])

    @cached_property
    def saved(self) -> Decisions:
        """What the table in the raw folder said of the doubtful labels when it was first asked."""
        try:
            table, _ = self._existing()
        except InputError:  # `save` says what is wrong.
            return {}
        names = table["fname"].map(normalize_filename)
        known = dict(zip(names, zip(table["label"], table["note"], strict=True), strict=True))
        found = {fname: known.get(normalize_filename(fname)) for fname in self.clips["fname"]}
        return {fname: decision for fname, decision in found.items() if decision is not None}

    @property
    def decisions(self) -> Decisions:
        """All decisions, saved or not."""
        return {**self.saved, **self.decided}

    def save(self) -> tuple[bytes, Path | None]:
        """Write what is decided into the raw folder, beside the corrections that are there.

        Returns:
            The whole table as CSV, and the path that it was written to; None without a raw folder.

        Raises:
            InputError: the table that is there is invalid.
            OSError: the folder cannot be written to.
        """
        table, path = self._existing()
        content = format_corrections(merge_corrections(table, self.decided))
        if path is not None:
            with open_atomic(path) as file:
                file.write(content)
        return content, path

    def _existing(self) -> tuple[pd.DataFrame, Path | None]:
        """Return the corrections in the raw folder; without it, those that the run has read."""
        if self.raw_dir is not None and self.raw_dir.is_dir():
            return find_corrections(self.raw_dir)
        clips = self.predictions.clips.reindex(
            columns=["fname", "label", "note", "correction"], fill_value=""
        )
        corrected = clips.loc[clips["correction"] != "", ["fname", "label", "note"]]
        return corrected.fillna("").drop_duplicates("fname"), None
