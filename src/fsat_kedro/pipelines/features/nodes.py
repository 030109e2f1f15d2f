"""Nodes that compute log-mels and summary features, and project the latter by PCA."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.log_mel import log_mel
from fsat_kedro.audio.projection import Projector, fit_projector
from fsat_kedro.audio.summary_features import compile_librosa, feature_names, summary_features
from fsat_kedro.data.ragged import RaggedArray, gather
from fsat_kedro.errors import InputError
from fsat_kedro.modelling.crop_lengths import crop_length_range
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import LOG_MEL_RANGES, CropLengths, LogMel, Pca


def compute_log_mels(
    audio: RaggedArray, clips: pd.DataFrame, log_mel: LogMel, n_jobs: int, spool_dir: str
) -> RaggedArray:
    """Compute a log-mel per clip, item i (t_i, m); without frames for a rejected clip."""
    function = partial(_log_mel_frames, settings=log_mel.model_dump())
    return gather(_map_waves(function, audio, clips, n_jobs, "log-mels"), spool_dir=spool_dir)


def compute_summary_features(audio: RaggedArray, clips: pd.DataFrame, n_jobs: int) -> pd.DataFrame:
    """Compute the 1,133 summary features of each clip, a row per clip; NaN for a rejected clip."""
    compile_librosa()
    rows = list(_map_waves(_summary_row, audio, clips, n_jobs, "summary features"))
    return pd.DataFrame(np.stack(rows), index=pd.Index(clips["fname"]), columns=feature_names())


def fit_mel_statistics(
    mels: RaggedArray, crop_lengths: CropLengths, log_mel: LogMel
) -> dict[str, float]:
    """Compute the range of the training clips' log-mels, and the range of crop lengths.

    Returns:
        minimum and maximum, the values that become 0 and 1: of the training clips, or those of the
        kind of log-mel; bounded, whether values beyond them are unknown to the networks; shortest
        and longest crop length in frames.
    """
    usable = np.flatnonzero(mels.lengths)
    if len(usable) == 0:
        raise InputError(
            "no usable training clip: see the reasons in 08_reporting/rejected_clips.csv"
        )
    rate = log_mel.sample_rate / log_mel.hop_length
    shortest, longest = crop_length_range(
        mels.lengths[usable], crop_lengths, frames_per_second=rate
    )
    fixed = LOG_MEL_RANGES[log_mel.kind]
    smallest, largest = fixed or _find_range(mels, usable)
    return {
        "minimum": smallest,
        "maximum": largest,
        "bounded": fixed is None,
        "shortest": shortest,
        "longest": longest,
    }


def fit_summary_projector(summary: pd.DataFrame, pca: Pca) -> Projector:
    """Fit standardisation and PCA to the usable training clips."""
    usable = summary.dropna().to_numpy(np.float64)
    return fit_projector(usable, n_components=pca.n_components)


def project_summary_features(summary: pd.DataFrame, projector: Projector) -> np.ndarray:
    """Compute the components of each clip, (clips, p) float32; NaN for a rejected clip.

    They are within the range of the training clips, see `Projector.transform`.
    """
    usable = summary.notna().all(axis=1).to_numpy()
    components = np.full((len(summary), len(projector.axes)), np.nan, np.float32)
    if usable.any():
        components[usable] = projector.transform(summary[usable].to_numpy(np.float64))
    return components


def _find_range(mels: RaggedArray, rows: np.ndarray) -> tuple[float, float]:
    frames = (mels.reader(int(row))() for row in rows)
    smallest, largest = np.transpose([(values.min(), values.max()) for values in frames])
    return float(smallest.min()), float(largest.max())


def _map_waves(
    function: Callable, audio: RaggedArray, clips: pd.DataFrame, n_jobs: int, description: str
) -> Iterator[np.ndarray]:
    readers = map(audio.reader, range(len(audio)))
    return map_clips(
        partial(_call_on_wave, function),
        zip(clips["fname"], readers, strict=True),
        n_jobs=n_jobs,
        total=len(audio),
        description=description,
        seconds=(audio.lengths / SAMPLE_RATE).tolist(),
    )


def _call_on_wave(function: Callable, clip: tuple[str, Callable[[], np.ndarray]]) -> np.ndarray:
    """Apply a function to a clip's wave; errors name the clip."""
    fname, read = clip
    try:
        return function(read())
    except Exception as error:
        raise RuntimeError(f"clip {fname}: {error}") from error


def _log_mel_frames(wave: np.ndarray, *, settings: dict) -> np.ndarray:
    if len(wave) == 0:
        return np.zeros((0, settings["n_mels"]), np.float32)
    return np.ascontiguousarray(log_mel(wave, **settings).T)


def _summary_row(wave: np.ndarray) -> np.ndarray:
    if len(wave) == 0:
        return np.full(len(feature_names()), np.nan, np.float32)
    return summary_features(wave)
