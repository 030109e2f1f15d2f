"""Log-mel spectrograms of simple sounds."""

import librosa
import numpy as np
import pytest

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.log_mel import band_centers, constants, decibels, log_mel

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


KALDI = {"kind": "kaldi", "sample_rate": 32_000, "n_fft": 1024, "hop_length": 320, "n_mels": 128}


@pytest.mark.parametrize("frequency", [200, 1000, 5000, 12_000])
@pytest.mark.parametrize("settings", [LOG_MEL, KALDI])
def test_a_tone_is_loudest_in_the_band_that_has_its_frequency_as_center(settings, frequency):
    sizes = {key: settings[key] for key in ("kind", "sample_rate", "n_mels")}
    if frequency > settings["sample_rate"] / 2:
        pytest.skip("above the bands")
    mel = log_mel(tone(frequency, 0.5), **settings)
    nearest = np.abs(band_centers(**sizes) - frequency).argmin()
    loudest = mel[:, 5:-5].argmax(axis=0)
    assert (np.abs(loudest - nearest) <= 1).all()


def test_kaldi_has_a_frame_per_hop_of_the_difference_of_samples():
    for n_samples, n_frames in ((44_100, 100), (44_111, 101), (441, 1), (2, 1), (1, 1)):
        wave = tone(440, 1.1)[:n_samples]
        mel = log_mel(wave, **KALDI)
        assert (mel.shape, mel.dtype) == ((128, n_frames), np.float32)


def test_silence_of_kaldi_is_the_logarithm_of_the_offset():
    mel = log_mel(np.zeros(9000, np.float32), **KALDI)
    np.testing.assert_allclose(mel, np.log(1e-5), rtol=1e-6)


def test_differences_of_kaldi_convert_to_decibels():
    quiet, loud = (decibels(log_mel(tone(440, 0.3, x), **KALDI), "kaldi") for x in (0.05, 0.5))
    assert loud.max() - quiet.max() == pytest.approx(20, abs=0.01)
    np.testing.assert_array_equal(decibels(quiet, "librosa"), quiet)


def test_kaldi_emphasises_high_tones():
    low, high = (log_mel(tone(frequency, 0.3), **KALDI).max() for frequency in (500, 8000))
    # |1 − 0.97 e^(−iω)|² of both, and the greater width of the band, which lets no less through.
    omega = 2 * np.pi * np.array([500, 8000]) / 32_000
    gains = np.abs(1 - 0.97 * np.exp(-1j * omega)) ** 2
    assert high - low == pytest.approx(np.log(gains[1] / gains[0]), abs=1)


@pytest.mark.parametrize("settings", [LOG_MEL, KALDI])
def test_numpy_computes_the_same_from_the_constants(rng, settings):
    settings = {**settings, "sample_rate": SAMPLE_RATE, "n_fft": 2048}
    # Loud from its first sample to its last, and silent in the middle.
    wave = np.abs(np.linspace(-1, 1, 30_000)) ** 9 * rng.normal(0, 0.2, 30_000)
    c = constants(**settings)
    filtered = np.convolve(wave, c["pre_emphasis"], mode="valid")
    padded = np.pad(filtered, len(c["window"]) // 2, mode=c["padding"])
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(c["window"]))
    windows = windows[:: c["hop_length"]] * c["window"]
    mel = np.abs(np.fft.rfft(windows, c["n_fft"])) ** 2 @ c["mel_filters"].T
    found = c["log_scale"] * np.log(np.maximum(mel, c["log_floor"]) + c["log_offset"])
    found = np.maximum(found, found.max() - c["dynamic_range"])
    np.testing.assert_allclose(found.T, log_mel(wave.astype(np.float32), **settings), atol=2e-3)
