"""Timelines, with a tagger that knows tones: a class per level, so that results can be foreseen."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.inference import timeline
from fsat_kedro.inference.tagger import Sound, SoundPredictions
from fsat_kedro.inference.timeline import (
    audacity_labels,
    cell_probabilities,
    find_segments,
    tag_recording,
)
from fsat_kedro.parameters import Tag

RATE = 44_100
LABELS = ["loud", "medium", "soft", "hushed"]
LEVELS = [0.5, 0.1, 0.02, 0.0004]


class LevelTagger:
    """Gives each label the fraction of a window's samples that have its amplitude."""

    labels = LABELS
    settings = SimpleNamespace(trim=SimpleNamespace(top_db=60))

    def __init__(self):
        self.sizes = []

    def predict(self, sounds, *, n_jobs, whole, description):
        assert whole
        # Features of a constant signal are not defined.
        assert all(sound.reason or np.ptp(sound.content) for sound in sounds)
        self.sizes.append(len(sounds))
        rows = [
            [np.nan] * 4
            if sound.reason
            else [np.isclose(np.abs(sound.content), level, rtol=0.01).mean() for level in LEVELS]
            for sound in sounds
        ]
        remarks = {"reason": [sound.reason for sound in sounds], "warning": ["odd"] * len(sounds)}
        return SoundPredictions(np.array(rows), pd.DataFrame(remarks))


def square(level, seconds):
    return level * np.sign(np.sin(np.arange(round(seconds * RATE)) + 0.5))


def recording(*waves, **options):
    file = io.BytesIO()
    wave = np.concatenate(waves)
    soundfile.write(file, wave, RATE, **{"format": "WAV", "subtype": "FLOAT", **options})
    return Sound("recording.wav", file.getvalue())


def settings(**changes):
    values = {"timeline": True, "window_seconds": 1, "hop_seconds": 0.5, "threshold": 0.5}
    return Tag(**values | changes)


def spans(segments):
    return [(row.start, row.end, row.label) for row in segments.itertuples()]


def test_segments_are_where_the_sounds_are():
    sound = recording(square(0.5, 3), np.zeros(2 * RATE), square(0.1, 4), square(0.5, 1.5))
    found = tag_recording(LevelTagger(), sound, settings())
    assert found.reason == found.warning == ""
    assert spans(found.segments) == [(0, 3, "loud"), (5, 9, "medium"), (9, 10.5, "loud")]
    assert (found.segments["probability"] > 0.8).all()
    assert found.windows["start"].tolist() == [number / 2 for number in range(20)]
    assert found.windows["end"].iloc[-1] == 10.5
    silent = found.windows[found.windows["reason"] == "silence"]
    assert silent["start"].tolist() == [3, 3.5, 4]
    assert silent["tag_1"].isna().all()


def test_what_is_60_db_below_the_loudest_moment_is_silent():
    parts = square(0.5, 2), square(0.02, 2), square(0.0004, 2)
    found = tag_recording(LevelTagger(), recording(*parts), settings(hop_seconds=1))
    assert found.windows["reason"].tolist() == ["", "", "", "", "silence", "silence"]
    assert spans(found.segments) == [(0, 2, "loud"), (2, 4, "soft")]
    assert found.windows["tag_1"].isna().tolist() == [False] * 4 + [True] * 2


def test_a_window_has_its_own_warnings_and_those_of_its_tags():
    wave = square(0.5, 2)
    wave[:9] = 1e5
    found = tag_recording(LevelTagger(), recording(wave), settings(hop_seconds=1))
    defect = "9 samples up to 1e+05, taken as 0"
    assert found.windows["warning"].tolist() == [f"{defect}; odd", "odd"]


def test_silence_throughout_is_a_rejection():
    for wave in (np.zeros(RATE), np.full(3 * RATE, 0.25)):
        found = tag_recording(LevelTagger(), recording(wave), settings())
        assert found.reason == "silence throughout"
        assert found.windows.empty
        assert found.segments.empty


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (Sound("a.wav", b"no sound"), "not readable as sound"),
        (Sound("a.wav", "nowhere.wav"), "nowhere|not"),
        (Sound("a.wav", b"", "behind a link"), "behind a link"),
        (Sound("a.flac", b""), "an empty file"),
    ],
)
def test_what_cannot_be_read_has_a_reason_and_the_columns_of_others(sound, reason):
    found = tag_recording(LevelTagger(), sound, settings())
    assert found.reason
    assert pd.Series([found.reason]).str.contains(reason).all()
    usual = tag_recording(LevelTagger(), recording(square(0.5, 1)), settings())
    assert list(found.windows) == list(usual.windows)
    assert list(found.segments) == list(usual.segments)


def test_a_long_recording_is_tagged_in_groups(monkeypatch):
    monkeypatch.setattr(timeline, "_AT_ONCE", 4)
    sound, tagger = recording(square(0.5, 3), square(0.1, 3.25)), LevelTagger()
    found = tag_recording(tagger, sound, settings())
    assert tagger.sizes == [4, 4, 4]
    whole = LevelTagger()
    monkeypatch.setattr(timeline, "_AT_ONCE", 100)
    pd.testing.assert_frame_equal(found.windows, tag_recording(whole, sound, settings()).windows)
    assert whole.sizes == [12]


def test_a_cut_off_recording_is_tagged_with_a_warning():
    content = recording(square(0.5, 4), subtype="PCM_16").content
    sound = Sound("recording.wav", content[: len(content) // 2])
    found = tag_recording(LevelTagger(), sound, settings())
    assert found.warning.startswith("cut off: 49.9%")
    ((start, end, label),) = spans(found.segments)
    assert (start, label) == (0, "loud")
    assert end == pytest.approx(2, abs=0.001)


def test_a_cell_is_the_mean_of_the_windows_that_cover_it():
    starts, ends = np.array([0, 1, 2]), np.array([2, 3, 3.5])
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    edges, cells = cell_probabilities(starts, ends, probabilities, 1)
    assert edges.tolist() == [0, 1, 2, 3, 3.5]
    assert cells.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]


def test_a_cell_that_a_silent_window_covers_is_silent():
    starts, ends = np.array([0, 1, 2]), np.array([2, 3, 4])
    probabilities = np.array([[1.0], [np.nan], [1.0]])
    _, cells = cell_probabilities(starts, ends, probabilities, 1)
    assert np.isnan(cells[:, 0]).tolist() == [False, True, True, False]


def test_hops_that_do_not_divide_windows_leave_no_cell_without_a_window():
    starts = np.arange(20) * 0.7
    _, cells = cell_probabilities(starts, starts + 1, np.ones((20, 1)), 0.7)
    np.testing.assert_array_equal(cells, 1)


def test_segments_of_a_threshold_below_a_half_may_overlap():
    edges = np.array([0, 1, 2, 2.5])
    probabilities = np.array([[0.6, 0.4], [0.5, 0.5], [0.3, 0.7]])
    segments = find_segments(edges, probabilities, ["a", "b"], 0.5)
    assert spans(segments) == [(0, 2, "a"), (1, 2.5, "b")]
    # The half second counts half.
    assert segments["probability"].tolist() == pytest.approx([0.55, (0.5 + 0.35) / 1.5])


def test_a_label_that_comes_back_is_a_segment_of_its_own():
    edges, column = np.arange(6.0), np.array([0.9, 0.9, np.nan, 0.1, 0.9])
    segments = find_segments(edges, column[:, None], ["a"], 0.5)
    assert spans(segments) == [(0, 2, "a"), (4, 5, "a")]


def test_a_label_track_has_a_line_per_segment_whatever_the_label():
    segments = pd.DataFrame(
        [(0, 1.5, "a\tb\nc", 0.9), (1.25, 3600, "Café", 0.8)],
        columns=["start", "end", "label", "probability"],
    )
    assert audacity_labels(segments).splitlines() == [
        "0.000000\t1.500000\ta\\tb\\nc",
        "1.250000\t3600.000000\tCafé",
    ]


def test_a_hop_longer_than_a_window_is_refused():
    with pytest.raises(ValueError, match="hop_seconds is 2, more than the 1 of window_seconds"):
        settings(hop_seconds=2)
