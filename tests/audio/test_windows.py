"""Windows of a recording: all of its samples, once or more, as `decode` reads them."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fsat_kedro.audio.decoding import UnusableClipError, Windows, decode


def file_of(wave, rate=44_100, **options):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **{"format": "WAV", "subtype": "FLOAT", **options})
    file.seek(0)
    return file


def noise(n, *channels):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (n, *channels)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3000),
    length=st.integers(1, 800),
    hop=st.integers(1, 800),
    block=st.sampled_from([1, 7, 512, 4096]),
)
def test_windows_are_a_hop_apart_and_cover_the_recording(n, length, hop, block):
    hop, wave = min(hop, length), noise(n)
    rate = 44_100
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsat_kedro.audio.decoding._BLOCK", block)
        windows = list(Windows(file_of(wave), seconds=length / rate, hop_seconds=hop / rate))
    for number, window in enumerate(windows):
        start = number * hop
        np.testing.assert_array_equal(window.samples, wave[start : start + length])
        assert window.start == pytest.approx(start / rate)
        assert window.end == pytest.approx(min(n, start + length) / rate)
    # Each but the last is whole and ends before the recording does; the last one ends with it.
    assert [len(window.samples) for window in windows[:-1]] == [length] * (len(windows) - 1)
    assert windows[-1].end == pytest.approx(n / rate)
    assert all(window.end < n / rate for window in windows[:-1])


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_a_window_is_decoded_as_a_file_of_its_samples(rate):
    wave = noise(2 * rate, 2)
    windows = list(Windows(file_of(wave, rate), seconds=0.5, hop_seconds=0.25))
    assert len(windows) == 7
    for number, window in enumerate(windows):
        part = wave[round(number * 0.25 * rate) :][: round(0.5 * rate)]
        np.testing.assert_array_equal(window.samples, decode(file_of(part, rate), max_seconds=9)[0])


def test_a_shorter_recording_is_one_window():
    (window,) = Windows(file_of(noise(100)), seconds=1, hop_seconds=0.5)
    assert (window.start, window.end) == (0, 100 / 44_100)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44_100, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.full(10 * 44_100, 0.1))
    with path.open("rb") as file:
        tracemalloc.start()
        n_windows = sum(1 for _ in Windows(file, seconds=2, hop_seconds=1))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert n_windows == 599
    assert peak < 8e6  # All samples take 106 MB.


def test_a_recording_that_is_cut_off_has_a_warning_and_its_windows():
    content = file_of(noise(44_100), subtype="PCM_16").getvalue()
    windows = Windows(io.BytesIO(content[: len(content) // 2]), seconds=0.2, hop_seconds=0.2)
    assert len(list(windows)) == 3
    assert windows.warnings == ("cut off: 49.9% of what its header says",)


def test_a_few_samples_far_beyond_1_are_a_warning_of_their_window():
    wave = noise(44_100)
    wave[30_000] = 1e6
    windows = list(Windows(file_of(wave), seconds=0.5, hop_seconds=0.5))
    assert windows[0].warnings == ()
    assert windows[1].warnings == ("1 samples up to 1e+06, taken as 0",)


@pytest.mark.parametrize(
    ("file", "suffix", "reason"),
    [
        (io.BytesIO(), "", "an empty file"),
        (io.BytesIO(b"no sound"), "", "not readable as sound"),
        (file_of(noise(0)), "", "no samples"),
        (file_of(noise(10)), ".flac", "named .flac, but its content is WAV"),
        (file_of(noise(500, 1) * [1, -1]), "", "its channels cancel each other out"),
    ],
)
def test_a_recording_without_usable_sound_is_refused(file, suffix, reason):
    windows = Windows(file, seconds=1, hop_seconds=1, suffix=suffix)
    with pytest.raises(UnusableClipError, match=reason):
        list(windows)
