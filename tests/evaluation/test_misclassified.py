import numpy as np
import pandas as pd
import pytest

from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified
from fsat_kedro.evaluation.predictions import Predictions

LABELS = ["Bark", "Flute", "Meow", "Siren"]


def make_clips(labels, *, rejected=(), verified=None):
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


def test_misclassified_clips_are_sorted_by_confidence():
    clips = make_clips(["Bark", "Siren", "Bark", "Flute", pd.NA], rejected=[2])
    folds = np.array([1, 2, 0, 1, 2])
    misclassified = find_misclassified(Predictions(PROBABILITIES, clips, LABELS, folds))
    assert misclassified["fname"].tolist() == ["1.wav", "3.wav"]
    assert misclassified["row"].tolist() == [1, 3]
    assert misclassified["fold"].tolist() == [2, 1]
    assert misclassified["seconds"].tolist() == [0.5, 0.5]
    assert misclassified["rank"].tolist() == [4, 3]
    assert misclassified["probability"].tolist() == [0.01, 0.2]
    tags = misclassified[["tag_1", "tag_2", "tag_3"]].to_numpy().tolist()
    assert tags == [["Bark", "Meow", "Flute"], ["Siren", "Meow", "Flute"]]
    assert misclassified["probability_2"].tolist() == [0.05, 0.3]


def test_a_label_that_is_none_of_the_classes_has_no_rank_and_no_probability():
    clips = make_clips(["Bark", "Harp", pd.NA, "Siren", "Flute"])
    misclassified = find_misclassified(Predictions(PROBABILITIES, clips, LABELS))
    assert misclassified["fold"].tolist() == [0]
    assert misclassified["label"].tolist() == ["Harp"]
    assert misclassified[["rank", "probability"]].isna().all(axis=None)


@pytest.mark.parametrize(("n_classes", "n_tags"), [(1, 1), (2, 2), (3, 3)])
def test_there_are_no_more_tags_than_classes(n_classes, n_tags):
    probabilities = np.ones((1, n_classes)) / n_classes
    predictions = Predictions(probabilities, make_clips(["Harp"]), LABELS[:n_classes])
    misclassified = find_misclassified(predictions)
    assert misclassified[["tag_1", "tag_2", "tag_3"]].notna().to_numpy().sum() == n_tags


def test_without_misclassified_clips_the_table_has_no_rows():
    clips = make_clips(["Bark", "Bark", pd.NA, "Siren", "Flute"])
    misclassified = find_misclassified(Predictions(PROBABILITIES, clips, LABELS))
    assert misclassified.empty
    assert {"row", "fname", "rank", "tag_1", "probability_3"} <= set(misclassified)


def test_an_exemplar_has_the_highest_probability_of_its_class():
    clips = make_clips(["Bark", "Bark", "Bark", "Flute", "Flute"], rejected=[2])
    assert find_exemplars(Predictions(PROBABILITIES, clips, LABELS[:2])) == [1, 4]


def test_an_exemplar_is_verified_if_its_class_has_verified_clips():
    clips = make_clips(["Bark"] * 3 + ["Flute"] * 2, verified=[True, False, True, None, False])
    clips["status"] = "ok"
    probabilities = np.nan_to_num(PROBABILITIES)
    assert find_exemplars(Predictions(probabilities, clips, LABELS[:2])) == [0, 4]
