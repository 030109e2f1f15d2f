import librosa
import numpy as np
import pytest

from fsat_kedro.audio.stft import istft, stft

SIZES = [(2048, 512), (1764, 441)]


def noise(n_samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize(("n_fft", "hop_length"), [*SIZES, (1764, 220)])
@pytest.mark.parametrize("n_samples", [1, 100, 2100, 300_000])
def test_stft_equals_librosa(n_samples, n_fft, hop_length):
    wave = noise(n_samples)
    expected = librosa.stft(wave, n_fft=n_fft, hop_length=hop_length)
    ours = stft(wave, n_fft=n_fft, hop_length=hop_length)
    assert ours.dtype == np.complex64
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("n_fft", "hop_length"), SIZES)
@pytest.mark.parametrize("n_samples", [2100, 10_000])
def test_istft_equals_librosa_for_a_masked_stft(n_samples, n_fft, hop_length, rng):
    transform = librosa.stft(noise(n_samples), n_fft=n_fft, hop_length=hop_length)
    masked = transform * rng.random(transform.shape, dtype=np.float32)
    expected = librosa.istft(masked, hop_length=hop_length, n_fft=n_fft, length=n_samples)
    for parts in ([masked], [masked[:, :1], masked[:, 1:4], masked[:, 4:]]):
        ours = istft(parts, hop_length=hop_length, length=n_samples)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_istft_inverts_stft():
    wave = noise(5000)
    transform = stft(wave, n_fft=2048, hop_length=512)
    np.testing.assert_allclose(istft([transform], hop_length=512, length=5000), wave, atol=1e-6)
