import base64
import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.evaluation.previews import encode_audio, encode_mel


def content_of(uri):
    media_type, _, data = uri.partition(";base64,")
    return media_type, base64.b64decode(data)


def test_a_spectrogram_has_low_frequencies_at_the_bottom():
    mel = np.full((50, 64), -90.0)
    mel[:10, :5] = 0
    image = np.asarray(Image.open(io.BytesIO(content_of(encode_mel(mel))[1])).convert("L"))
    assert image.shape == (64, 50)
    assert image[-5:, :10].min() > 200
    assert image[:-5].max() == image[:, 10:].max() < 10


def test_a_long_spectrogram_is_resized():
    mel = np.random.default_rng(0).normal(size=(5000, 64))
    assert Image.open(io.BytesIO(content_of(encode_mel(mel))[1])).size == (640, 64)


@pytest.mark.parametrize(
    ("formats", "media_type"), [({"MP3": ""}, "audio/mpeg"), ({}, "audio/flac")]
)
def test_a_quiet_wave_gets_the_common_peak_level(monkeypatch, formats, media_type):
    monkeypatch.setattr(soundfile, "available_formats", lambda: formats)
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    wave = 0.001 * np.sin(2 * np.pi * 440 * times).astype(np.float32)
    found, content = content_of(encode_audio(wave))
    assert found == f"data:{media_type}"
    decoded, rate = soundfile.read(io.BytesIO(content))
    assert rate == SAMPLE_RATE
    assert np.abs(decoded).max() == pytest.approx(0.9, abs=0.05)


def test_silence_stays_silence():
    _, content = content_of(encode_audio(np.zeros(100, np.float32)))
    assert np.abs(soundfile.read(io.BytesIO(content))[0]).max() == 0
