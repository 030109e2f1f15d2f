from base64 import b64encode
from importlib.metadata import version
from types import SimpleNamespace

import pandas as pd
import pytest

from fsat_kedro.inference import serving
from fsat_kedro.inference.serving import SOUNDS_DIR, TaggerModel, _requirements, _sound


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


@pytest.mark.parametrize("columns", [["fname"], ["fname", "audio"]])
def test_missing_values_of_the_table_are_none(monkeypatch, columns):
    answer = pd.DataFrame({"tag_1": pd.array([None, "Bark"], "string"), "probability_1": [None, 1]})
    tagged = []
    tagger = SimpleNamespace(tag=lambda sounds: tagged.extend(sounds) or answer)
    monkeypatch.setattr(serving.Tagger, "load", lambda folder: tagger)
    model = TaggerModel()
    model.load_context(SimpleNamespace(artifacts={"ensemble": "folder"}))
    tagged.clear()
    table = pd.DataFrame([["a.wav", None], ["b.wav", None]], columns=["fname", "audio"])
    tags = model.predict(None, table[columns])
    assert [sound.name for sound in tagged] == ["a.wav", "b.wav"]
    assert tags.to_dict("records") == [
        {"tag_1": None, "probability_1": None},
        {"tag_1": "Bark", "probability_1": 1},
    ]


def test_requirements_are_the_installed_versions_without_extras():
    requirements = _requirements()
    assert f"keras=={version('keras')}" in requirements
    assert f"click=={version('click')}" in requirements
    assert not any(line.startswith(("distributed", "pytest")) for line in requirements)
