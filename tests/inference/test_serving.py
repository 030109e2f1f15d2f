from base64 import b64encode
from functools import partial
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.inference import serving
from fsat_kedro.inference.serving import SOUNDS_DIR, Limits, TaggerModel, _requirements

_sound = partial(serving._sound, max_bytes=1000)


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """A folder that the server may read, with a sound in it and a secret beside it."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    (folder / "bark.wav").write_bytes(b"RIFF")
    (tmp_path / "secret.wav").write_bytes(b"RIFF")
    monkeypatch.setenv(SOUNDS_DIR, str(folder))
    return folder


def test_a_sound_arrives_as_bytes_in_base64():
    sound = _sound("any/folder/bark.wav", b64encode(b"RIFF").decode())
    assert (sound.name, sound.content, sound.reason) == ("bark.wav", b"RIFF", "")


@pytest.mark.parametrize("audio", ["not base64", "QUJ", "é"])
def test_bytes_that_are_not_in_base64_are_a_reason(audio):
    assert _sound("bark.wav", audio).reason.startswith("its audio is not in base64")


def test_a_sound_is_a_path_in_the_folder_of_the_server(sounds):
    sound = _sound("bark.wav", None)
    assert (sound.content, sound.reason) == (str(sounds / "bark.wav"), "")


@pytest.mark.parametrize("fname", ["../secret.wav", "link.wav", "{tmp_path}/secret.wav"])
def test_a_path_out_of_the_folder_is_not_read(sounds, tmp_path, fname):
    (sounds / "link.wav").symlink_to(tmp_path / "secret.wav")
    sound = _sound(fname.format(tmp_path=tmp_path), None)
    assert sound.content == b""
    assert sound.reason == f"not below the server's {SOUNDS_DIR}"


@pytest.mark.parametrize("fname", ["gone.wav", ""])
def test_a_path_without_a_file_is_a_reason(sounds, fname):
    assert _sound(fname, None).reason == f"not a file in the server's {SOUNDS_DIR}"


def test_a_server_without_a_folder_reads_none(sounds, monkeypatch):
    monkeypatch.delenv(SOUNDS_DIR)
    sound = _sound("bark.wav", None)
    assert sound.content == b""
    assert sound.reason == f"it has no audio, and the server does not set {SOUNDS_DIR}"


@pytest.mark.parametrize("size", range(998, 1004))
def test_a_file_that_is_too_large_is_not_read(sounds, size):
    content = bytes(size)
    (sounds / "bark.wav").write_bytes(content)
    for audio in (None, b64encode(content).decode()):
        reason = "its file is larger than 0.001 MB" if size > 1000 else ""
        assert _sound("bark.wav", audio).reason == reason


@pytest.mark.parametrize("audio", [b64encode(b"RIFF").decode(), None])
@pytest.mark.parametrize(
    "fname", [None, float("nan"), 5, ["a.wav"], {"a": "wav"}, "a\0.wav", "a" * 1001, "é" * 501]
)
def test_a_name_that_no_file_has_is_a_reason(sounds, fname, audio):
    sound = _sound(fname, audio)
    assert (sound.name, sound.content) == ("", b"")
    assert sound.reason.startswith("its fname ")


def test_odd_names_are_those_of_sounds(sounds):
    for fname in ("\ud800.wav", "\x1b[31m.wav", ".", "🐶.wav", "n" * 1000):
        assert _sound(fname, b64encode(b"RIFF").decode()).content == b"RIFF"
        assert _sound(fname, None).reason == f"not a file in the server's {SOUNDS_DIR}"
    assert _sound("\ud800.wav", None).name == "\\ud800.wav"


@pytest.mark.parametrize("audio", [5, 5.5, True, [1, 2], {"a": 1}, b"RIFF"])
def test_audio_that_is_no_string_is_a_reason(sounds, audio):
    sound = _sound("bark.wav", audio)
    assert (sound.content, sound.reason) == (b"", "its audio is not a string")


def test_a_missing_value_is_no_audio(sounds):
    assert _sound("bark.wav", float("nan")).content == str(sounds / "bark.wav")


def test_limits_are_set_in_the_environment(monkeypatch):
    assert Limits.from_environment() == Limits()
    monkeypatch.setenv("FSAT_KEDRO_MAX_ROWS", "7")
    monkeypatch.setenv("FSAT_KEDRO_MAX_SECONDS", "2.5")
    assert Limits.from_environment() == Limits(max_rows=7, max_seconds=2.5)


@pytest.mark.parametrize("text", ["", "many", "0", "-1", "nan"])
def test_a_limit_that_is_no_positive_number_is_refused_by_its_name(monkeypatch, text):
    monkeypatch.setenv("FSAT_KEDRO_MAX_MEGABYTES", text)
    with pytest.raises(InputError, match=f"FSAT_KEDRO_MAX_MEGABYTES is '{text}': set it to"):
        Limits.from_environment()


class EchoTagger:
    """Stands for an ensemble, and remembers the sounds."""

    def __init__(self):
        self.sounds = []

    def tag(self, sounds):
        self.sounds = list(sounds)
        tags = pd.array([None] * len(sounds), "string")
        rows = {"fname": [sound.name for sound in sounds], "tag_1": tags, "probability_1": np.nan}
        return pd.DataFrame({**rows, "reason": [sound.reason for sound in sounds]})


@pytest.fixture
def model(monkeypatch):
    """Return a model with an ensemble that knows no tags, and 3 rows at most."""
    monkeypatch.setenv("FSAT_KEDRO_MAX_ROWS", "3")
    monkeypatch.setenv("FSAT_KEDRO_MAX_SECONDS", "9")
    tagger, loaded = EchoTagger(), []
    monkeypatch.setattr(
        serving.Tagger, "load", lambda folder, **settings: loaded.append(settings) or tagger
    )
    model = TaggerModel()
    model.load_context(SimpleNamespace(artifacts={"ensemble": "folder"}))
    assert loaded == [{"max_seconds": 9}]
    return model


@pytest.mark.parametrize("columns", [["fname"], ["fname", "audio"], ["audio"]])
def test_missing_columns_and_values_are_none(model, columns):
    table = pd.DataFrame([["a.wav", None], ["b.wav", None]], columns=["fname", "audio"])
    tags = model.predict(None, table[columns])
    assert tags["fname"].tolist() == (["a.wav", "b.wav"] if "fname" in columns else ["", ""])
    assert tags["tag_1"].tolist() == tags["probability_1"].tolist() == [None, None]


def test_a_request_without_rows_has_none_in_its_answer(model):
    assert len(model.predict(None, pd.DataFrame())) == 0


def test_a_request_of_too_many_rows_is_refused_in_each_row_and_not_read(model):
    audio = b64encode(b"RIFF").decode()
    table = pd.DataFrame({"fname": list("abcd"), "audio": audio})
    assert (model.predict(None, table[:3])["reason"] == "").all()
    tags = model.predict(None, table)
    assert tags["fname"].tolist() == list("abcd")
    assert (tags["reason"] == "the request has 4 rows, more than 3").all()
    assert all(sound.content == b"" for sound in model._tagger.sounds)


def test_requirements_are_the_installed_versions_without_extras():
    requirements = _requirements()
    assert f"keras=={version('keras')}" in requirements
    assert f"click=={version('click')}" in requirements
    assert not any(line.startswith(("distributed", "pytest")) for line in requirements)
