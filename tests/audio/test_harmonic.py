"""Each step is compared with librosa's, on noise and tones."""

import warnings

import librosa
import numpy as np
import pytest
import scipy.ndimage

from fsat_kedro.audio import harmonic


def sound(n_samples, seed=1):
    rng = np.random.default_rng(seed)
    chord = sum(np.sin(2 * np.pi * f * np.arange(n_samples) / 44100) for f in (225, 450, 1010))
    return (0.1 * chord + rng.normal(0, 0.05, n_samples)).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 50), (33, 3)])
@pytest.mark.parametrize("axis", [0, 1])
def test_running_median_equals_scipy(rng, shape, axis):
    values = rng.random(shape).astype(np.float32)
    size = [1, 1]
    size[axis] = 31
    expected = scipy.ndimage.median_filter(values, size=size)
    np.testing.assert_array_equal(harmonic.running_median(values, axis), expected)


def test_soft_mask_equals_librosa(rng):
    target, other = (rng.normal(size=(50, 60)).astype(np.float32) ** 2 for _ in range(2))
    target[:2] = other[1:3] = 0
    target[5], other[6] = 1e-30, 1e-30
    expected = librosa.util.softmask(target, other, power=2, split_zeros=True)
    np.testing.assert_allclose(harmonic.soft_mask(target, other), expected, atol=3e-7)


@pytest.mark.parametrize("n_samples", [2100, 8000, 200_000])
def test_harmonic_wave_equals_librosa(n_samples):
    wave = sound(n_samples)
    ours = harmonic.harmonic_wave(librosa.stft(wave), wave.size)
    np.testing.assert_allclose(ours, librosa.effects.harmonic(wave), atol=3e-7)


@pytest.mark.parametrize("block", [1, 7, 15, 40, 79])
def test_blocks_of_frames_give_the_same_values(block, monkeypatch):
    wave = sound(40_000)
    transform = librosa.stft(wave)
    expected = harmonic.harmonic_wave(transform, wave.size), harmonic.constant_q(wave, 0.1)
    monkeypatch.setattr(harmonic, "_MEDIAN_BLOCK", block)
    monkeypatch.setattr(harmonic, "_WAVELET_BLOCK", block)
    np.testing.assert_allclose(harmonic.harmonic_wave(transform, wave.size), expected[0], atol=1e-7)
    np.testing.assert_allclose(harmonic.constant_q(wave, 0.1), expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bins_per_octave", [12, 36])
@pytest.mark.parametrize("seed", range(5))
def test_tuning_equals_librosa_even_if_the_loudest_bins_are_not_pitches(bins_per_octave, seed):
    magnitude = np.abs(librosa.stft(sound(30_000, seed)))
    magnitude[700:, 10:] *= 300
    expected = librosa.estimate_tuning(S=magnitude, sr=44100, bins_per_octave=bins_per_octave)
    assert harmonic.estimate_tuning(magnitude, bins_per_octave) == expected


def test_the_tuning_of_silence_causes_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert harmonic.estimate_tuning(np.zeros((1025, 5), np.float32), 12) == 0


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("tuning", [-0.5, 0.0, 0.37])
@pytest.mark.parametrize("n_samples", [2100, 66_151])
def test_constant_q_equals_librosa(n_samples, tuning):
    wave = sound(n_samples)
    expected = np.abs(librosa.cqt(wave, sr=44100, n_bins=252, bins_per_octave=36, tuning=tuning))
    ours = harmonic.constant_q(wave, tuning)
    np.testing.assert_allclose(ours, expected, atol=1e-5 * expected.max())


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("n_samples", [2100, 66_151])
def test_tonnetz_equals_librosa(n_samples):
    wave = sound(n_samples)
    expected = librosa.feature.tonnetz(y=wave, sr=44100)
    np.testing.assert_allclose(harmonic.tonnetz(wave), expected, atol=1e-5)
