import numpy as np
import pandas as pd
import pytest

from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified

LABELS = ["Bark", "Flute", "Meow", "Siren"]


def clips_of(labels, *, rejected=(), verified=None):
    n = len(labels)
    return pd.DataFrame(
        {
            "fname": pd.array([f"{i}.wav" for i in range(n)], dtype="string"),
            "label": pd.array(labels, dtype="string"),
            "verified": pd.array(verified or [None] * n, dtype="boolean"),
            "status": ["rejected" if i in rejected else "ok" for i in range(n)],
            "length": [22_050] * n,
        }
    )


PROBABILITIES = np.array(
    [
        [0.6, 0.2, 0.1, 0.1],
        [0.9, 0.04, 0.05, 0.01],
        [np.nan] * 4,
        [0.1, 0.2, 0.3, 0.4],
        [0.1, 0.7, 0.1, 0.1],
    ]
)


def test_missed_clips_are_those_whose_first_tag_is_not_their_label_surest_first():
    clips = clips_of(["Bark", "Siren", "Bark", "Flute", pd.NA], rejected=[2])
    missed = find_misclassified(PROBABILITIES, clips, LABELS, np.array([1, 2, 0, 1, 2]))
    assert missed["fname"].tolist() == ["1.wav", "3.wav"]
    assert missed["row"].tolist() == [1, 3]
    assert missed["fold"].tolist() == [2, 1]
    assert missed["seconds"].tolist() == [0.5, 0.5]
    assert missed["rank"].tolist() == [4, 3]
    assert missed["probability"].tolist() == [0.01, 0.2]
    tags = missed[["tag_1", "tag_2", "tag_3"]].to_numpy().tolist()
    assert tags == [["Bark", "Meow", "Flute"], ["Siren", "Meow", "Flute"]]
    assert missed["probability_2"].tolist() == [0.05, 0.3]


def test_a_clip_whose_label_is_no_class_is_missed_with_neither_rank_nor_probability():
    clips = clips_of(["Bark", "Harp", pd.NA, "Siren", "Flute"])
    missed = find_misclassified(PROBABILITIES, clips, LABELS, np.zeros(5, int))
    assert missed["label"].tolist() == ["Harp"]
    assert missed[["rank", "probability"]].isna().all(axis=None)


@pytest.mark.parametrize(("n_classes", "n_tags"), [(1, 1), (2, 2), (3, 3)])
def test_there_are_no_more_tags_than_classes(n_classes, n_tags):
    missed = find_misclassified(
        np.ones((1, n_classes)) / n_classes, clips_of(["Harp"]), LABELS[:n_classes], np.ones(1, int)
    )
    assert missed[["tag_1", "tag_2", "tag_3"]].notna().to_numpy().sum() == n_tags


def test_nothing_missed_is_a_table_without_rows():
    clips = clips_of(["Bark", "Bark", pd.NA, "Siren", "Flute"])
    missed = find_misclassified(PROBABILITIES, clips, LABELS, np.ones(5, int))
    assert missed.empty
    assert {"row", "fname", "rank", "tag_1", "probability_3"} <= set(missed)


def test_the_clear_clip_of_a_class_has_the_greatest_probability_of_it():
    clips = clips_of(["Bark", "Bark", "Bark", "Flute", "Flute"], rejected=[2])
    assert find_exemplars(PROBABILITIES, clips, LABELS[:2]) == [1, 4]


def test_a_clear_clip_is_verified_where_its_class_has_such():
    clips = clips_of(["Bark"] * 3 + ["Flute"] * 2, verified=[True, False, True, None, False])
    clips["status"] = "ok"
    probabilities = np.nan_to_num(PROBABILITIES)
    assert find_exemplars(probabilities, clips, LABELS[:2]) == [0, 4]
