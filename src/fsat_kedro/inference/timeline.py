"""Timelines of long recordings: tags of overlapping windows, merged into segments.

Axes: n samples, k windows, j cells, c classes. A cell lasts from the start of a window to that of
the next, so that all windows cover it or not as a whole.
"""

from contextlib import closing
from io import BytesIO
from itertools import islice
from pathlib import PurePath
from typing import BinaryIO, NamedTuple

import librosa
import numpy as np
import pandas as pd
from tqdm import tqdm

from fsat_kedro.audio.decoding import UnusableClipError, Window, Windows
from fsat_kedro.data.raw_files import open_raw_file, printable
from fsat_kedro.errors import UnreadableError
from fsat_kedro.inference.ensemble import rank_labels
from fsat_kedro.inference.tagger import Sound, Tagger
from fsat_kedro.parameters import Tag

SILENCE = "silence"
"""The reason of a window without sound."""

_AT_ONCE = 128
"""Windows that are in memory together."""


class Timeline(NamedTuple):
    """What is heard in a recording, and when. All times are in seconds.

    Attributes:
        windows: k rows: start, end; tag_1, probability_1, … tag_3, probability_3; reason, warning.
        segments: start, end, label, probability (its mean), in order of start.
        reason: why the recording is rejected, and has neither of them; "" for none.
        warning: what is odd about the recording; "" for nothing.
    """

    windows: pd.DataFrame
    segments: pd.DataFrame
    reason: str = ""
    warning: str = ""


def tag_recording(tagger: Tagger, sound: Sound, settings: Tag, *, n_jobs: int = 1) -> Timeline:
    """Tag the windows of a recording, and merge them into segments.

    A window is silent if it is everywhere more than the training's `trim.top_db` below the loudest
    moment of the recording. Memory does not grow with the recording, but for a row per window.

    Args:
        tagger: the ensemble. Each of its networks predicts each window once.
        sound: the recording, a file.
        settings: length and hop of the windows, and the threshold of segments.
        n_jobs: processes for the features; −1 for one per core.
    """
    try:
        table, probabilities, warning = _tag_windows(tagger, sound, settings, n_jobs)
    except (UnusableClipError, UnreadableError) as error:
        nothing = np.empty((0, len(tagger.labels)))
        table = pd.DataFrame(columns=["start", "end", "reason", "warning"])
        return Timeline(_tabulate(table, nothing, tagger.labels), _no_segments(), str(error))
    edges, cells = cell_probabilities(
        table["start"].to_numpy(), table["end"].to_numpy(), probabilities, settings.hop_seconds
    )
    segments = find_segments(edges, cells, tagger.labels, settings.threshold)
    return Timeline(_tabulate(table, probabilities, tagger.labels), segments, warning=warning)


def audacity_labels(segments: pd.DataFrame) -> str:
    """Format segments as a label track of Audacity: start, end and label, separated by tabs."""
    return "".join(
        f"{row.start:.6f}\t{row.end:.6f}\t{printable(row.label)}\n"
        for row in segments.itertuples(index=False)
    )


def cell_probabilities(
    starts: np.ndarray, ends: np.ndarray, probabilities: np.ndarray, hop_seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average the windows that cover each cell.

    Args:
        starts: of the windows (k,), in seconds, `hop_seconds` apart.
        ends: (k,).
        probabilities: (k, c); NaN for silence.
        hop_seconds: length of all cells but the last.

    Returns:
        The edges of the cells (j + 1,), and their probabilities (j, c): NaN where a silent window
        covers a cell, for then it is silent.
    """
    # Rounding to samples leaves no cell of a fraction of a sample at the end.
    n_cells = max(1, int(np.ceil(ends[-1] / hop_seconds - 1e-3)))
    edges = np.append(np.arange(n_cells) * hop_seconds, ends[-1])
    centres = (edges[:-1] + edges[1:]) / 2
    sums, counts = np.zeros((n_cells, probabilities.shape[1])), np.zeros((n_cells, 1))
    first, last = np.searchsorted(centres, starts), np.searchsorted(centres, ends)
    for start, end, row in zip(first, last, probabilities, strict=True):
        sums[start:end] += row
        counts[start:end] += 1
    return edges, sums / counts


def find_segments(
    edges: np.ndarray, probabilities: np.ndarray, labels: list[str], threshold: float
) -> pd.DataFrame:
    """Merge consecutive cells in which a label has at least some probability.

    Args:
        edges: of the cells (j + 1,), in seconds.
        probabilities: (j, c); NaN belongs to no segment.
        labels: names of the c classes.
        threshold: the smallest probability.

    Returns:
        The table `Timeline.segments`.
    """
    rows = []
    lengths = np.diff(edges)
    for column, label in zip(probabilities.T, labels, strict=True):
        changes = np.diff(np.pad(column >= threshold, 1).astype(int))
        pairs = zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1), strict=True)
        for first, last in pairs:
            mean = np.average(column[first:last], weights=lengths[first:last])
            rows.append((edges[first], edges[last], label, mean))
    segments = pd.DataFrame(rows, columns=["start", "end", "label", "probability"])
    segments = segments.astype({"start": float, "end": float, "probability": float})
    return segments.sort_values(["start", "end"], ignore_index=True)


def _tag_windows(
    tagger: Tagger, sound: Sound, settings: Tag, n_jobs: int
) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Return start, end, reason and warning of the windows, their probabilities; and a warning.

    Raises:
        UnusableClipError: the recording has no usable sound.
        UnreadableError: it cannot be read.
    """
    if sound.reason:
        raise UnusableClipError(sound.reason)
    tables, probabilities = [], []
    with _open(sound.content) as file, _progress_bar(sound.name) as bar:
        windows = Windows(
            file,
            seconds=settings.window_seconds,
            hop_seconds=settings.hop_seconds,
            suffix=PurePath(sound.name).suffix,
        )
        with closing(iter(windows)) as left:
            while group := list(islice(left, _AT_ONCE)):
                sounds = [_window_sound(sound.name, window) for window in group]
                predictions = tagger.predict(sounds, n_jobs=n_jobs, whole=True, description="")
                probabilities.append(predictions.probabilities)
                tables.append(_describe(group, predictions.remarks))
                bar.update(group[-1].end - bar.n)
    table, everything = pd.concat(tables, ignore_index=True), np.concatenate(probabilities)
    silent = _find_silent(table.pop("level").to_numpy(), tagger.settings.trim.top_db)
    if silent.all():
        raise UnusableClipError("silence throughout")
    table.loc[silent, "reason"] = SILENCE
    everything[silent] = np.nan
    return table, everything, "; ".join(windows.warnings)


def _open(content: str | bytes | np.ndarray) -> BinaryIO:
    assert not isinstance(content, np.ndarray)
    return BytesIO(content) if isinstance(content, bytes) else open_raw_file(content)


def _window_sound(name: str, window: Window) -> Sound:
    # Features of a constant signal are not defined.
    constant = window.samples.min() == window.samples.max()
    return Sound(name, window.samples, SILENCE if constant else "")


def _describe(windows: list[Window], remarks: pd.DataFrame) -> pd.DataFrame:
    """Tabulate start, end, reason, warning and level of some windows."""
    warnings = [
        "; ".join(filter(None, [*window.warnings, remark]))
        for window, remark in zip(windows, remarks["warning"], strict=True)
    ]
    return pd.DataFrame(
        {
            "start": [window.start for window in windows],
            "end": [window.end for window in windows],
            "reason": remarks["reason"],
            "warning": warnings,
            "level": [_level(window.samples) for window in windows],
        }
    )


def _level(samples: np.ndarray) -> float:
    """Return the root mean square of the loudest frame, with the frames of `decoding.trim`."""
    if samples.min() == samples.max():
        return 0.0
    return float(librosa.feature.rms(y=samples).max())


def _find_silent(levels: np.ndarray, top_db: float) -> np.ndarray:
    """Return which windows (k,) are more than `top_db` dB below the loudest one."""
    return levels <= levels.max() * 10 ** (-top_db / 20)


def _tabulate(table: pd.DataFrame, probabilities: np.ndarray, labels: list[str]) -> pd.DataFrame:
    ranked = rank_labels(probabilities, labels)
    return pd.concat([table[["start", "end"]], ranked, table[["reason", "warning"]]], axis=1)


def _no_segments() -> pd.DataFrame:
    return find_segments(np.zeros(1), np.empty((0, 0)), [], 1)


def _progress_bar(name: str) -> tqdm:
    """Create a bar of the seconds that are tagged, which shows itself in a terminal."""
    form = "{desc}: {n:.0f} s of sound in {elapsed}"
    return tqdm(desc=printable(name), disable=None, bar_format=form)
