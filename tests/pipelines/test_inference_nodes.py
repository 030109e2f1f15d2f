"""The nodes that combine, rank and score the predictions of all folds."""

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.evaluation import metrics
from fsat_kedro.pipelines.inference import create_pipeline, nodes

CLASSES = {"labels": ["Bark", "Flute", "Meow", "Siren"], "prior": [0.1, 0.2, 0.3, 0.4]}
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.06, 0.04],  # Bark Flute Meow
        [0.1, 0.2, 0.3, 0.4],  # Siren Meow Flute
        [0.3, 0.4, 0.2, 0.1],  # Flute Bark Meow
        [0.1, 0.2, 0.3, 0.4],  # Siren Meow Flute
    ]
)


def clips_of(labels, usage=None, rejected=()):
    n = len(labels)
    return pd.DataFrame(
        {
            "fname": pd.Series([f"{index}.wav" for index in range(n)], dtype="string"),
            "label": pd.Series(labels, dtype="string"),
            "usage": pd.Series([pd.NA] * n if usage is None else usage, dtype="string"),
            "status": ["rejected" if index in rejected else "ok" for index in range(n)],
        }
    )


def test_folds_are_combined_and_rejected_clips_get_the_prior():
    clips = clips_of([pd.NA] * 3, rejected=[1])
    nan = [np.nan] * 4
    first = np.array([np.log([0.4, 0.4, 0.1, 0.1]), nan, np.log([0.25] * 4)])
    second = np.array([np.log([0.4, 0.1, 0.1, 0.4]), nan, np.log([0.7, 0.1, 0.1, 0.1])])
    probabilities = nodes.combine_folds(clips, CLASSES, first, second)
    # Roots of the products 0.16, 0.04, 0.01, 0.04.
    np.testing.assert_allclose(probabilities[0], np.array([4, 2, 1, 2]) / 9)
    np.testing.assert_allclose(probabilities[1], CLASSES["prior"])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_every_clip_gets_three_labels_in_the_order_of_the_table():
    submission = nodes.rank_tags(PROBABILITIES, clips_of([pd.NA] * 4, rejected=[3]), CLASSES)
    assert submission["fname"].tolist() == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert submission["label"].tolist() == [
        "Bark Flute Meow",
        "Siren Meow Flute",
        "Flute Bark Meow",
        "Siren Meow Flute",
    ]


def test_labels_have_no_spaces_and_are_fewer_where_there_are_two_classes():
    classes = {"labels": ["Double bass", "Oboe"], "prior": [0.5, 0.5]}
    submission = nodes.rank_tags(np.array([[0.2, 0.8], [0.6, 0.4]]), clips_of([pd.NA] * 2), classes)
    assert submission["label"].tolist() == ["Oboe Double_bass", "Double_bass Oboe"]


def test_public_private_and_pooled_scores_leave_unlabelled_clips_out():
    clips = clips_of(
        ["Bark", "Meow", "Siren", pd.NA], usage=["Public", "Private", "private", "Ignored"]
    )
    scores = nodes.score_test(PROBABILITIES, clips, CLASSES, seed=0)
    # Ranks: first, second, none of three.
    assert scores["map_at_3"] == pytest.approx({"public": 1, "private": 0.25, "pooled": 0.5})
    assert scores["accuracy"] == pytest.approx({"public": 1, "private": 0, "pooled": 1 / 3})
    assert scores["n_clips"] == {"public": 1, "private": 2, "pooled": 3}
    # Of the private clips, the worse one twice, the better one twice.
    assert scores["map_at_3_low"] == {"public": 1, "private": 0, "pooled": 0}
    assert scores["map_at_3_high"] == {"public": 1, "private": 0.5, "pooled": 1}


def test_labelled_clips_without_usage_are_pooled_only():
    clips = clips_of(["Bark", "Meow", "Siren", pd.NA])
    scores = nodes.score_test(PROBABILITIES, clips, CLASSES, seed=0)
    assert scores["map_at_3"] == pytest.approx({"pooled": 0.5})


def test_without_any_label_there_is_no_score():
    scores = nodes.score_test(PROBABILITIES, clips_of([pd.NA] * 4), CLASSES, seed=0)
    assert scores == {score: {} for score in metrics.SCORES}


def test_a_label_that_no_training_clip_has_counts_as_misclassified_with_a_warning(caplog):
    scores = nodes.score_test(PROBABILITIES[:2], clips_of(["Bark", "Harp"]), CLASSES, seed=0)
    assert scores["accuracy"] == pytest.approx({"pooled": 0.5})
    (message,) = caplog.messages
    assert message.startswith("1 test clips have labels that no training clip has")
    assert message.endswith("Harp")


def test_every_fold_is_scored_on_the_clips_that_the_ensemble_is_scored_on():
    clips = clips_of(["Bark", "Siren", "Flute", pd.NA], rejected=[1])
    logs = np.log(PROBABILITIES)
    logs[1] = np.nan
    other = np.log(PROBABILITIES[:, ::-1])
    other[1] = np.nan
    scores = nodes.score_folds(clips, CLASSES, 0, logs, other)
    assert scores["fold"].tolist() == [1, 2]
    assert scores["n_clips"].tolist() == [3, 3]
    # The rejected one has the prior, in which its class comes first.
    assert scores["map_at_3"].tolist() == pytest.approx([(1 + 1 + 1) / 3, (0 + 1 + 1 / 3) / 3])
    alone = nodes.score_test(nodes.combine_folds(clips, CLASSES, logs), clips, CLASSES, seed=0)
    assert {score: parts["pooled"] for score, parts in alone.items()} == scores[
        list(metrics.SCORES)
    ].iloc[0].to_dict()


def test_without_any_label_no_fold_is_scored():
    scores = nodes.score_folds(clips_of([pd.NA] * 4), CLASSES, 0, np.log(PROBABILITIES))
    assert list(scores) == ["fold", *metrics.SCORES]
    assert scores.empty


def test_all_nodes_are_in_one_namespace_and_only_weights_are_inputs_by_fold():
    pipeline = create_pipeline(3, ("mel", "mel_pca"))
    folds = {f"inference.fold_{fold}" for fold in (1, 2, 3)}
    assert {node.namespace for node in pipeline.nodes} == {"inference", *folds}
    by_fold = {name for name in pipeline.inputs() if name[-1].isdigit()}
    assert by_fold == {f"mel_pca_weights_{fold}" for fold in (1, 2, 3)}
    assert pipeline.outputs() == {"submission", "test_scores", "fold_test_scores"}
