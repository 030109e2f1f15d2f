"""Log-mel spectrograms of simple sounds."""

import librosa
import numpy as np
import pytest

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.log_mel import log_mel

LOG_MEL = {"kind": "librosa", "sample_rate": 22050, "n_fft": 1764, "hop_length": 220, "n_mels": 64}


def tone(frequency, seconds, amplitude=0.5):
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.mark.parametrize("frequency", [200, 1000, 5000])
def test_a_tone_is_loudest_in_the_band_of_its_frequency(frequency):
    mel = log_mel(tone(frequency, 0.5), **LOG_MEL)
    centres = librosa.mel_frequencies(66, fmax=11025)[1:-1]
    nearest = np.abs(centres - frequency).argmin()
    loudest = mel[:, 5:-5].argmax(axis=0)
    assert (np.abs(loudest - nearest) <= 1).all()


def test_a_frame_is_220_samples_at_half_the_rate():
    mel = log_mel(tone(440, 1), **LOG_MEL)
    assert mel.shape == (64, 1 + 22050 // 220)
    assert mel.dtype == np.float32


def test_ten_times_the_amplitude_is_20_db_more():
    quiet, loud = (log_mel(tone(440, 0.3, amplitude=x), **LOG_MEL) for x in (0.05, 0.5))
    assert loud.max() - quiet.max() == pytest.approx(20, abs=0.01)


def test_all_values_are_at_most_80_db_below_the_maximum():
    mel = log_mel(np.concatenate([tone(440, 0.3), np.zeros(9000, np.float32)]), **LOG_MEL)
    assert mel.max() - mel.min() == pytest.approx(80, abs=1e-3)
