"""The review of doubtful labels, of hand-worked probabilities."""

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.data.label_corrections import TABLE
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.evaluation.label_review import LabelReview
from fsat_kedro.evaluation.predictions import Predictions

NAMES = ["a.wav", "b.wav", "c.wav", "d.wav", "e\x1b.wav"]


@pytest.fixture
def review(tmp_path):
    """A review of a and b; c is corrected, d is no doubt, e has an unprintable name."""
    clips = pd.DataFrame(
        {
            "fname": NAMES,
            "label": pd.array(["Bark", "Bark", "Bark", "Meow", "Bark"], "string"),
            "verified": pd.array([None] * 5, "boolean"),
            "status": "ok",
            "correction": ["", "", "changed", "", ""],
            "note": ["", "", "sure", "", ""],
        }
    )
    cat = np.array([0.6, 0.9, 0.8, 0.9, 0.7])
    predictions = Predictions(np.c_[1 - cat, cat], clips, ["Bark", "Meow"], np.ones(5, int))
    audio = RaggedArray(np.arange(5 * 40 * SAMPLE_RATE) % 7, np.arange(6) * 40 * SAMPLE_RATE)
    return LabelReview(predictions, audio, tmp_path)


def test_undecided_doubtful_labels_come_worst_first(review):
    assert review.clips["fname"].tolist() == ["b.wav", "a.wav"]
    assert review.clips["suggested"].tolist() == ["Meow", "Meow"]


def test_the_sound_of_a_clip_is_its_first_half_minute(review):
    np.testing.assert_array_equal(review.sound(1), review.audio[1][: 30 * SAMPLE_RATE])


def test_saved_decisions_are_found_and_new_ones_come_before_them(review, tmp_path):
    (tmp_path / TABLE).write_text("fname,label,note\na.wav,Meow,old\nb.wav,Bark,\nd.wav,,\n")
    review.decided["a.wav"] = ("", "new")
    assert review.decisions == {"a.wav": ("", "new"), "b.wav": ("Bark", "")}
    content, path = review.save()
    assert path.read_bytes() == content
    assert content.decode().splitlines() == [
        "fname,label,note",
        *("b.wav,Bark,", "d.wav,,", "a.wav,,new"),
    ]


def test_without_a_raw_folder_the_table_has_the_corrections_that_the_run_has_read(review):
    gone = LabelReview(review.predictions, review.audio, None, {"a.wav": ("Meow", "")})
    content, path = gone.save()
    assert path is None
    assert content.decode().splitlines()[1:] == ["c.wav,Bark,sure", "a.wav,Meow,"]


def test_an_invalid_table_stays_as_it_is(review, tmp_path):
    (tmp_path / TABLE).write_text("name\na.wav\n")
    review.decided["a.wav"] = ("Meow", "")
    assert review.saved == {}
    with pytest.raises(InputError, match="no column fname"):
        review.save()
    assert (tmp_path / TABLE).read_text() == "name\na.wav\n"
