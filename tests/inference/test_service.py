import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.errors import InputError
from fsat_kedro.inference import service as service_module
from fsat_kedro.inference.service import SOUNDS_DIR, Limits, TaggingService

_sound = partial(service_module._sound, max_bytes=1000)


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
    """Stands for an ensemble, and remembers the sounds of each call."""

    def __init__(self):
        self.calls = []

    def prepare(self):
        pass

    def tag(self, sounds):
        self.calls.append(list(sounds))
        tags = pd.array([None] * len(sounds), "string")
        rows = {"fname": [sound.name for sound in sounds], "tag_1": tags, "probability_1": np.nan}
        return pd.DataFrame({**rows, "reason": [sound.reason for sound in sounds]})


AUDIO = b64encode(b"RIFF").decode()


@pytest.fixture
def tagger():
    return EchoTagger()


@pytest.fixture
def service(tagger):
    """Return a service with an ensemble that knows no tags, and with 9 rows at most."""
    return TaggingService(tagger, Limits(max_rows=9, max_request_seconds=5))


def test_the_first_request_finds_a_tagger_that_has_tagged(service, tagger):
    ((noise,),) = tagger.calls
    samples, _ = soundfile.read(BytesIO(noise.content))
    assert len(samples) > 0


def test_each_row_has_an_answer_in_its_place_and_none_for_what_is_missing(service):
    tags = service.tag([("a.wav", AUDIO), (None, None), ("b.wav", AUDIO), ("a.wav", 5)])
    assert tags["fname"].tolist() == ["a.wav", "", "b.wav", "a.wav"]
    assert [reason != "" for reason in tags["reason"]] == [False, True, False, True]
    assert tags["tag_1"].tolist() == tags["probability_1"].tolist() == [None] * 4


def test_a_request_without_rows_has_none_in_its_answer(service):
    assert len(service.tag([])) == 0


def test_a_request_of_too_many_rows_is_refused_in_each_row_and_not_read(service, tagger):
    rows = [(f"{index}.wav", AUDIO) for index in range(10)]
    assert (service.tag(rows[:9])["reason"] == "").all()
    assert sum(map(len, tagger.calls)) == 1 + 9
    tags = service.tag(rows)
    assert tags["fname"].tolist() == [fname for fname, _ in rows]
    assert (tags["reason"] == "the request has 10 rows, more than 9").all()
    assert all(sound.content == b"" for sound in tagger.calls[-1])


def test_work_ends_at_the_deadline_and_what_is_done_is_answered(service, monkeypatch):
    times = iter([100, 101, 104.9, 105.1])  # At the start, and before each group.
    monkeypatch.setattr(service_module, "monotonic", lambda: next(times))
    tags = service.tag([("a.wav", AUDIO)] * 9)
    assert (tags["reason"][:8] == "").all()
    assert tags["reason"][8] == "the request took more than 5 s: send fewer sounds at once"


def test_a_request_that_waits_for_another_beyond_its_deadline_is_not_tagged(tagger):
    service = TaggingService(tagger, Limits(max_request_seconds=0.01))
    with service._turn, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(service.tag, [("a.wav", AUDIO)])
        time.sleep(0.05)
        service._turn.release()
        reasons = waiting.result(timeout=10)["reason"].tolist()
        service._turn.acquire()
    assert reasons == ["the request took more than 0.01 s: send fewer sounds at once"]


def test_work_ends_when_nobody_waits_for_it(service, tagger):
    answers = iter([False, True])
    tags = service.tag([("a.wav", AUDIO)] * 9, ends=lambda: next(answers))
    assert (tags["reason"] == "").tolist() == [True] * 4 + [False] * 5
    assert all(sound.content == b"" for sound in tagger.calls[-1])
