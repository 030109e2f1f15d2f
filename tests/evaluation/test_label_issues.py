"""Label issues of hand-worked probabilities, and of labels that are wrong by construction."""

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.evaluation.label_issues import find_label_issues, undecided_issues
from fsat_kedro.evaluation.predictions import Predictions

LABELS = ["Bark", "Flute", "Meow"]


def predict(labels, probabilities, *, rejected=(), **columns):
    n = len(labels)
    clips = pd.DataFrame(
        {
            "fname": [f"{i}.wav" for i in range(n)],
            "label": pd.array(labels, dtype="string"),
            "verified": pd.array([None] * n, dtype="boolean"),
            "status": ["rejected" if i in rejected else "ok" for i in range(n)],
            **columns,
        }
    )
    return Predictions(np.array(probabilities), clips, LABELS, np.ones(n, int))


# Means of the labelled class: Bark (0.9 + 0.3 + 0.45) / 3 = 0.55, Flute 0.6, Meow 0.5.
HAND_WORKED = predict(
    ["Bark", "Bark", "Flute", "Meow", "Bark", "Bark"],
    [
        [0.9, 0.1, 0.0],
        [0.3, 0.65, 0.05],  # As sure of Flute as clips of that label are on average.
        [0.2, 0.6, 0.2],
        [0.4, 0.1, 0.5],
        [np.nan] * 3,
        [0.45, 0.05, 0.5],  # Exactly as sure of Meow.
    ],
    rejected=[4],
)


def test_the_worst_label_comes_first_with_a_suggestion():
    issues = find_label_issues(HAND_WORKED)
    assert issues["fname"].tolist() == ["1.wav", "5.wav", "3.wav", "2.wav", "0.wav"]
    assert issues["row"].tolist() == [1, 5, 3, 2, 0]
    np.testing.assert_allclose(issues["quality"], [0.325, 0.475, 0.55, 0.7, 0.9])
    assert issues["suggested"].tolist() == ["Flute", "Meow", "Bark", "Bark", "Flute"]
    np.testing.assert_allclose(issues["probability"], [0.65, 0.5, 0.4, 0.2, 0.1])
    assert issues["issue"].tolist() == [True, True, False, False, False]


def test_a_suggestion_is_a_class_that_the_networks_are_sure_of():
    # 0.45 is much for Meow, whose clips have 0.4, and little for Flute, whose clips have 0.9.
    probabilities = [[0.9, 0.1, 0], [0, 0.9, 0.1], [0.3, 0.3, 0.4], [0.1, 0.47, 0.43]]
    issues = find_label_issues(predict(["Bark", "Flute", "Meow", "Bark"], probabilities))
    assert issues["fname"][0] == "3.wav"
    assert issues["suggested"][0] == "Meow"
    assert issues["issue"].tolist() == [True, False, False, False]


def test_a_decided_label_is_no_issue_any_more():
    decided = [""] * 6
    decided[1] = "confirmed"
    HAND_WORKED.clips["correction"] = decided
    assert find_label_issues(HAND_WORKED)["correction"].tolist() == ["confirmed", "", "", "", ""]
    assert undecided_issues(HAND_WORKED)["fname"].tolist() == ["5.wav"]


def test_a_single_class_has_no_issues():
    labels = ["Bark"] * 2
    single = predict(labels, [[1.0], [1.0]])
    single = Predictions(single.probabilities, single.clips, ["Bark"], single.folds)
    assert not find_label_issues(single)["issue"].any()


@pytest.mark.parametrize("seed", range(3))
def test_most_flipped_labels_are_found_and_few_others(seed):
    rng = np.random.default_rng(seed)
    true = rng.integers(3, size=300)
    given = np.where(rng.random(300) < 0.2, (true + 1) % 3, true)
    logits = 3 * np.eye(3)[true] + rng.normal(size=(300, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    issues = find_label_issues(predict([LABELS[x] for x in given], probabilities))
    flipped = (given != true)[issues["row"]]
    assert flipped[:30].mean() > 0.9
    assert issues["issue"][flipped].mean() > 0.7
    assert issues["issue"][~flipped].mean() < 0.2
