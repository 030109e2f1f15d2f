"""Spectrograms and sounds of clips, as data URIs that the report embeds.

Axes: n samples, t frames, m mel bands.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import soundfile
from matplotlib import colormaps
from PIL import Image

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.log_mel import decibels
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation.label_issues import undecided_issues
from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.parameters import LogMel, Report

_DYNAMIC_RANGE = 80  # dB, from the darkest color of a spectrogram to the brightest.
_MAX_WIDTH = 640  # Pixels of a spectrogram.
_PEAK = 0.9  # Of every sound, so that quiet clips are audible too.


@dataclass(frozen=True)
class AudioPreview:
    """The beginning of a clip: spectrogram and sound as data URIs, and their length."""

    spectrogram: str
    sound: str
    seconds: float

    @property
    def size(self) -> int:
        """Size on the page, in bytes."""
        return len(self.spectrogram) + len(self.sound)


@dataclass(frozen=True)
class PreviewedPredictions:
    """The predictions of a split, and previews of some of its clips by their row."""

    predictions: Predictions
    previews: Mapping[int, AudioPreview]


def preview_clips(
    report: Report, log_mel: LogMel, predictions: Predictions, audio: RaggedArray, mels: RaggedArray
) -> PreviewedPredictions:
    """Preview the clips of a split that the report may show.

    They are the most confident misclassifications and, out-of-fold, the clips with the worst labels
    and an exemplar of each class.
    Item i of `audio` is (n_i,), trimmed, at 44.1 kHz; item i of `mels` is (t_i, m).
    """
    hop_seconds = log_mel.hop_length / log_mel.sample_rate
    rows = {*find_misclassified(predictions)["row"].head(2 * report.max_clips)}
    if predictions.folds is not None:
        issues = undecided_issues(predictions)["row"].head(report.max_clips)
        rows |= {*issues, *find_exemplars(predictions)}
    previews = {}
    for row in rows:
        wave = audio.reader(row)()[: round(report.max_seconds * SAMPLE_RATE)]
        seconds = len(wave) / SAMPLE_RATE
        mel = decibels(mels.reader(row)()[: max(1, round(seconds / hop_seconds))], log_mel.kind)
        previews[row] = AudioPreview(encode_mel(mel), encode_audio(wave), seconds)
    return PreviewedPredictions(predictions, previews)


def encode_mel(mel: np.ndarray) -> str:
    """Return a log-mel spectrogram (t, m) in dB as a PNG data URI, low frequencies at the bottom.

    The colors cover 80 dB below its loudest value.
    """
    levels = np.clip((mel - mel.max()) / _DYNAMIC_RANGE + 1, 0, 1)
    image = Image.fromarray(np.round(255 * levels.T[::-1]).astype(np.uint8))
    if len(mel) > _MAX_WIDTH:
        image = image.resize((_MAX_WIDTH, mel.shape[1]), Image.Resampling.BOX)
    colors = np.round(255 * colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8)
    image.putpalette(colors.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return data_uri("image/png", file.getvalue())


def encode_audio(wave: np.ndarray) -> str:
    """Return a wave (n,) at 44.1 kHz as a data URI, scaled to the same peak for every clip.

    The format is MP3, which every browser plays, or FLAC if libsndfile is built without MP3.
    """
    mp3 = "MP3" in soundfile.available_formats()
    peak = np.abs(wave).max()
    file = io.BytesIO()
    scaled = wave * (_PEAK / peak if peak else 1)
    soundfile.write(file, scaled, SAMPLE_RATE, format="MP3" if mp3 else "FLAC")
    return data_uri("audio/mpeg" if mp3 else "audio/flac", file.getvalue())


def data_uri(media_type: str, content: bytes) -> str:
    """Return the content as a base64 data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
