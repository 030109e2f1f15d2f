"""Decoding, trimming and log-mels, on sounds one can reason about and against the reference."""

import io
import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from fsat_kedro import audio

SHARED = Path(os.environ.get("FSAT_SHARED", Path(__file__).parents[1].parent / "shared"))
REFERENCE = SHARED / "reference" / "seed_features.npz"
LOG_MEL = {"sample_rate": 22050, "n_fft": 1764, "hop_length": 220, "n_mels": 64}


def tone(frequency, seconds, sample_rate=audio.SAMPLE_RATE, amplitude=0.5):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def file_of(wave, sample_rate=audio.SAMPLE_RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, wave, sample_rate, **{"format": "WAV", "subtype": "FLOAT", **options})
    file.seek(0)
    return file


# Decoding


@pytest.mark.parametrize("options", [{}, {"format": "FLAC", "subtype": "PCM_16"}])
def test_a_mono_file_is_read_as_it_is(options):
    wave = tone(440, 0.1)
    decoded = audio.decode(file_of(wave, **options))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, wave, atol=2**-15)


def test_stereo_becomes_the_mean_of_both_sides():
    left, right = tone(440, 0.1), tone(1000, 0.1, amplitude=0.1)
    decoded = audio.decode(file_of(np.stack([left, right], axis=1)))
    np.testing.assert_allclose(decoded, (left + right) / 2, atol=1e-7)


def test_other_sample_rates_are_resampled_to_the_same_sound():
    decoded = audio.decode(file_of(tone(1000, 0.5, 22050), 22050))
    expected = tone(1000, 0.5)
    assert decoded.shape == expected.shape
    np.testing.assert_allclose(decoded[500:-500], expected[500:-500], atol=1e-3)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (io.BytesIO(), "not readable as sound"),
        (io.BytesIO(b"no sound at all" * 100), "not readable as sound"),
        (file_of(np.zeros(0, np.float32)), "no samples"),
        (file_of(np.zeros((0, 2), np.float32)), "no samples"),
        (file_of(np.array([0.1, np.nan, 0.2], np.float32)), "NaN or infinite"),
        (file_of(np.array([0.1, np.inf, 0.2], np.float32)), "NaN or infinite"),
        (file_of(np.zeros(44100, np.float32)), "silence throughout"),
    ],
)
def test_a_file_without_usable_sound_is_refused_with_the_reason(file, reason):
    file.seek(0)
    with pytest.raises(audio.UnusableClipError, match=reason):
        audio.load_trimmed(file, top_db=60)


# Trimming


def test_silence_around_a_tone_is_cut_to_within_a_frame():
    silence = np.zeros(22050, np.float32)
    wave = tone(440, 0.5)
    clip = audio.load_trimmed(file_of(np.concatenate([silence, wave, silence])), top_db=60)
    # A frame of 2,048 samples counts as sound as soon as it reaches into the tone.
    assert 22050 - 2048 <= clip.start <= 22050
    assert 44100 <= clip.end <= 44100 + 2048
    assert len(clip.samples) == clip.end - clip.start
    inside = clip.samples[22050 - clip.start :][:22050]
    np.testing.assert_array_equal(inside, wave)


def test_the_threshold_is_in_db_below_the_loudest_frame():
    wave = np.concatenate([tone(440, 0.5, amplitude=0.5 * 10 ** (-40 / 20)), tone(440, 0.5)])
    start_below, _ = audio.trim(wave, top_db=60)
    start_above, _ = audio.trim(wave, top_db=20)
    assert start_below == 0
    assert 22050 - 2048 <= start_above <= 22050


@pytest.mark.filterwarnings("ignore:n_fft=1764 is too large")
def test_one_sample_of_sound_is_sound():
    clip = audio.load_trimmed(file_of(np.array([0.5], np.float32)), top_db=60)
    assert (clip.start, clip.end) == (0, 1)
    assert audio.log_mel(clip.samples, **LOG_MEL).shape == (64, 1)


# Log-mels


@pytest.mark.parametrize("frequency", [200, 1000, 5000])
def test_a_tone_is_loudest_in_the_band_that_holds_its_frequency(frequency):
    mel = audio.log_mel(tone(frequency, 0.5), **LOG_MEL)
    centres = librosa.mel_frequencies(66, fmax=11025)[1:-1]
    nearest = np.abs(centres - frequency).argmin()
    loudest = mel[:, 5:-5].argmax(axis=0)
    assert (np.abs(loudest - nearest) <= 1).all()


def test_a_frame_is_220_samples_at_half_the_rate():
    mel = audio.log_mel(tone(440, 1), **LOG_MEL)
    assert mel.shape == (64, 1 + 22050 // 220)
    assert mel.dtype == np.float32


def test_ten_times_the_amplitude_is_20_db_more():
    quiet, loud = (audio.log_mel(tone(440, 0.3, amplitude=x), **LOG_MEL) for x in (0.05, 0.5))
    assert loud.max() - quiet.max() == pytest.approx(20, abs=0.01)


def test_nothing_is_more_than_80_db_below_the_loudest():
    mel = audio.log_mel(np.concatenate([tone(440, 0.3), np.zeros(9000, np.float32)]), **LOG_MEL)
    assert mel.max() - mel.min() == pytest.approx(80, abs=1e-3)


# The reference


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference values at {REFERENCE}")
def test_trimmed_intervals_and_log_mels_agree_with_the_reference():
    with np.load(REFERENCE) as reference:
        for index, path in enumerate(reference["paths"]):
            with (SHARED / "data" / path).open("rb") as file:
                clip = audio.load_trimmed(file, top_db=60)
            interval = reference["trim_interval"][index].tolist()
            assert [clip.start, clip.end] == interval, path
            expected = reference[f"logmel_{index:02d}"]
            mel = audio.log_mel(clip.samples, **LOG_MEL)
            assert mel.shape == expected.shape, path
            assert np.abs(mel - expected).max() < 0.01, path
