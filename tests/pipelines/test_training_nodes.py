"""The training nodes that need no network, and their wiring."""

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.data.folds import stratified_folds
from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import parts
from fsat_kedro.parameters import Folds, LabelNoise
from fsat_kedro.pipelines.training import create_pipeline, nodes

CLASSES = {"labels": ["Bark", "Meow"], "prior": [0.5, 0.5]}
STAGES = ("mel", "mel_pca")
NOISE = LabelNoise(rounds=0, robustness=0, unknown="verified")


def clips_of(labels, rejected=(), folds=None, verified=None, groups=None):
    n = len(labels)
    status = ["rejected" if index in rejected else "ok" for index in range(n)]
    return pd.DataFrame(
        {
            "fname": [f"{index}.wav" for index in range(n)],
            "label": pd.Series(labels, dtype="string"),
            "status": status,
            "verified": pd.array(verified or [None] * n, dtype="boolean"),
            "fold": pd.Series([pd.NA] * n if folds is None else folds, dtype="Int64"),
            "group": pd.Series(groups or [pd.NA] * n, dtype="string"),
        }
    )


def test_classes_are_in_alphabetical_order_with_their_fractions_of_usable_clips():
    clips = clips_of(["Meow", "Bark", "Meow", "Aria", "Meow", "Bark"], rejected=[3, 4])
    classes = nodes.list_classes(clips)
    assert classes == {"labels": ["Bark", "Meow"], "prior": [0.5, 0.5]}


def test_a_single_label_is_logged_as_a_warning(caplog):
    classes = nodes.list_classes(clips_of(["Bark", "Bark", "Meow"], rejected=[2]))
    assert classes == {"labels": ["Bark"], "prior": [1.0]}
    (warning,) = caplog.messages
    assert warning.startswith("All training clips are labelled Bark, so every clip")


def test_stratified_folds_leave_rejected_clips_out():
    clips = clips_of(["Bark", "Meow"] * 6, rejected=[2, 5])
    assigned = nodes.assign_folds(clips, Folds(source="stratified", n_folds=2), NOISE, seed=0)
    assert np.flatnonzero(assigned == 0).tolist() == [2, 5]
    assert np.bincount(assigned).tolist() == [2, 5, 5]
    for label in ("Bark", "Meow"):
        of_label = assigned[(clips["label"] == label) & (assigned > 0)]
        assert sorted(np.bincount(of_label, minlength=3)[1:]) == [2, 3]


def test_folds_are_stratified_over_verified_labels_where_labels_may_be_wrong():
    clips = clips_of(["Bark"] * 12, verified=[True] * 4 + [False] * 4 + [None] * 4)
    folds = Folds(source="stratified", n_folds=4)
    for unknown, n_alike in (("verified", 8), ("unverified", 8)):
        noise = LabelNoise(rounds=1, robustness=0, unknown=unknown)
        assigned = nodes.assign_folds(clips, folds, noise, seed=1)
        alike = assigned[:4], assigned[4:8]
        alike = np.concatenate([alike[unknown == "unverified"], assigned[8:]])
        assert np.bincount(alike)[1:].tolist() == [n_alike // 4] * 4
    off = nodes.assign_folds(clips, folds, NOISE, seed=1)
    expected = stratified_folds(clips["label"].to_numpy(str), n_folds=4, seed=1)
    np.testing.assert_array_equal(off, expected)


def test_given_folds_are_kept_except_for_rejected_clips():
    clips = clips_of(["Bark"] * 5, rejected=[1], folds=[2, 1, 1, 2, 1])
    assigned = nodes.assign_folds(clips, Folds(source="given", n_folds=2), NOISE, seed=0)
    assert assigned.tolist() == [2, 0, 1, 2, 1]


def test_a_given_fold_whose_clips_are_all_rejected_is_an_error():
    clips = clips_of(["Bark"] * 3, rejected=[0], folds=[2, 1, 1])
    with pytest.raises(InputError, match=r"in folds \[1\]"):
        nodes.assign_folds(clips, Folds(source="given", n_folds=2), NOISE, seed=0)


def test_missing_given_folds_are_an_error_with_a_remedy():
    with pytest.raises(InputError, match=r"set folds\.source to stratified"):
        nodes.assign_folds(clips_of(["Bark"] * 4), Folds(source="given", n_folds=2), NOISE, seed=0)


def test_automatic_folds_are_those_given_or_else_stratified():
    labels = ["Bark", "Meow"] * 6
    automatic, stratified = (Folds(source=source, n_folds=2) for source in ("auto", "stratified"))
    own = [2, 2, 1, 1, 1, 2] * 2
    given = nodes.assign_folds(clips_of(labels, folds=own), automatic, NOISE, seed=0)
    assert given.tolist() == own
    drawn = [
        nodes.assign_folds(clips_of(labels), x, NOISE, seed=0) for x in (automatic, stratified)
    ]
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].tolist() != own


def test_clips_of_a_group_are_in_one_fold_and_a_clip_without_one_is_alone():
    groups = ["a", "a", "a", "b", "b", "b", pd.NA, pd.NA, pd.NA]
    clips = clips_of(["Bark"] * 9, groups=groups, rejected=[1])
    folds = Folds(source="auto", n_folds=5)
    assigned = nodes.assign_folds(clips, folds, NOISE, seed=0)
    assert assigned[1] == 0
    assert assigned[0] == assigned[2]
    assert len({*assigned[3:6]}) == 1
    assert len({*assigned[[0, 3, 6, 7, 8]]}) == 5


def test_given_folds_that_divide_a_group_draw_a_warning(caplog):
    clips = clips_of(["Bark"] * 4, folds=[1, 2, 1, 2], groups=["a", "a", pd.NA, pd.NA])
    nodes.assign_folds(clips, Folds(source="given", n_folds=2), NOISE, seed=0)
    assert "The clips of 1 groups are in several folds" in caplog.text


def test_the_parts_of_a_fold_are_disjoint_and_complete():
    assigned = np.array([1, 3, 0, 2, 2, 1, 0, 3])
    clips, folds = clips_of(["Bark", "Meow"] * 4), Folds(source="stratified", n_folds=3)
    splits = nodes.split_folds(assigned, clips, CLASSES, {"minimum": -90.0}, folds, NOISE)
    assert [split["fold"] for split in splits] == [1, 2, 3]
    for split in splits:
        assert not set(split["train"]) & set(split["validation"])
        assert sorted([*split["train"], *split["validation"]]) == [0, 1, 3, 4, 5, 7]
        assert (assigned[split["validation"]] == split["fold"]).all()
    assert sorted(np.concatenate([split["validation"] for split in splits])) == [0, 1, 3, 4, 5, 7]


def test_a_split_has_what_the_networks_need_to_know_of_all_clips():
    clips, folds = clips_of(["Bark", "Meow", pd.NA]), Folds(source="stratified", n_folds=2)
    split, _ = nodes.split_folds(
        np.array([1, 2, 0]), clips, CLASSES, {"minimum": -90.0}, folds, NOISE
    )
    assert split["fnames"] == ["0.wav", "1.wav", "2.wav"]
    assert split["targets"].tolist() == [0, 1, -1]
    assert (split["n_classes"], split["mel_statistics"]) == (2, {"minimum": -90.0})


def test_out_of_fold_predictions_are_combined_and_nan_for_rejected_clips():
    nan = [np.nan, np.nan]
    first = np.array([np.log([0.9, 0.1]), nan, nan, np.log([0.2, 0.8])])
    second = np.array([nan, np.log([0.3, 0.7]), nan, nan])
    probabilities = nodes.combine_out_of_fold(first, second)
    np.testing.assert_allclose(probabilities, [[0.9, 0.1], [0.3, 0.7], nan, [0.2, 0.8]])


def test_a_certain_prediction_is_no_rejected_clip():
    logs = np.array([[0.0, -80.0], [np.nan, np.nan]])
    probabilities = nodes.combine_out_of_fold(logs)
    np.testing.assert_allclose(probabilities[0], [1, 0], atol=1e-12)
    assert np.isnan(probabilities[1]).all()


def test_cross_validation_scores_match_a_worked_example():
    clips = clips_of(["Bark", "Meow", "Meow", "Bark"], rejected=[3])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [np.nan, np.nan]])
    assigned = np.array([1, 2, 2, 0])
    scores = nodes.score_cross_validation(probabilities, assigned, clips, CLASSES, seed=0)
    assert scores["map_at_3"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    parts = pd.DataFrame([*scores["per_fold"], scores])
    assert parts["n_clips"].tolist() == [1, 2, 3]
    assert parts["fold"].tolist()[:2] == [1, 2]
    assert parts["map_at_3"].tolist()[:2] == [1, 0.75]
    assert parts["accuracy"].tolist()[:2] == [1, 0.5]
    # The only clip of fold 1; the worse one of fold 2 twice, the better one twice.
    assert parts["map_at_3_low"].tolist()[:2] == [1, 0.5]
    assert parts["map_at_3_high"].tolist() == [1, 1, 1]
    assert parts["accuracy_low"].tolist()[:2] == [1, 0]
    assert parts["accuracy_high"].tolist() == [1, 1, 1]
    again = nodes.score_cross_validation(probabilities, assigned, clips, CLASSES, seed=0)
    assert scores == again


def test_verified_clips_are_also_scored_alone_if_there_are_others():
    clips = clips_of(["Bark", "Meow", "Meow", "Bark"], verified=[True, False, True, None])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6]])
    assigned = np.array([1, 2, 2, 1])
    scores = nodes.score_cross_validation(probabilities, assigned, clips, CLASSES, seed=0)
    assert (scores["accuracy"], scores["n_clips"]) == (0.5, 4)
    assert (scores["verified"]["accuracy"], scores["verified"]["n_clips"]) == (1, 2)
    for verified in ([True] * 4, [False] * 4, [None] * 4):
        clips["verified"] = pd.array(verified, dtype="boolean")
        scores = nodes.score_cross_validation(probabilities, assigned, clips, CLASSES, seed=0)
        assert "verified" not in scores


def test_baselines_are_scored_on_the_features_that_there_are(caplog):
    rng = np.random.default_rng(0)
    clips = clips_of(["Bark", "Meow"] * 10, rejected=[0])
    features = rng.normal(size=(20, 3)) + 9 * (clips["label"] == "Bark").to_numpy()[:, None]
    features[0] = np.nan
    assigned = np.where(np.arange(20) > 0, 1 + np.arange(20) % 5, 0)
    caplog.set_level("INFO", nodes.logger.name)
    common = (assigned, clips, CLASSES)
    scores = nodes.score_baselines(*common, seed=0, n_jobs=1, embeddings=features)
    assert list(scores) == ["logistic regression"]
    assert scores["logistic regression"]["accuracy"] == 1
    assert scores["logistic regression"]["n_clips"] == 19
    assert "A logistic regression has an out-of-fold MAP@3 of 1.000" in caplog.text
    scores = nodes.score_baselines(*common, seed=0, n_jobs=1, summary=pd.DataFrame(features))
    assert list(scores) == ["random forest"]
    assert scores["random forest"]["accuracy"] == 1


@pytest.mark.parametrize("probe", [False, True])
def test_baselines_get_the_features_that_the_pipelines_compute(probe):
    for stages in (STAGES, ("mel",)):
        pipeline = create_pipeline(2, stages, probe=probe)
        (score,) = pipeline.only_nodes_with_outputs("baseline_scores").nodes
        features = {"train_summary"} if stages == STAGES else set()
        features |= {"train_embeddings"} if probe else set()
        assert set(score.inputs) & {"train_summary", "train_embeddings"} == features


def test_histories_are_joined_fold_by_fold_and_stage_by_stage():
    histories = [pd.DataFrame({"epoch": range(1, 1 + n), "loss": float(n)}) for n in (1, 2, 1, 3)]
    joined = nodes.join_histories(*histories, stages=STAGES)
    assert list(joined) == ["fold", "stage", "epoch", "loss"]
    assert joined["fold"].tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert joined["stage"].tolist() == ["mel", *["mel_pca"] * 2, "mel", *["mel_pca"] * 3]
    assert joined["epoch"].tolist() == [1, 1, 2, 1, 1, 2, 3]
    assert joined["loss"].tolist() == [1, 2, 2, 1, 3, 3, 3]


def test_histories_of_a_single_stage_are_one_of_each_fold():
    histories = [pd.DataFrame({"epoch": range(1, 1 + n), "loss": float(n)}) for n in (2, 1)]
    joined = nodes.join_histories(*histories, stages=("mel",))
    assert joined["fold"].tolist() == [1, 1, 2]
    assert joined["stage"].tolist() == ["mel"] * 3


def test_an_ensemble_is_described_after_all_its_parts_are_saved():
    for stages in (STAGES, ("mel",)):
        pipeline = create_pipeline(2, stages)
        (describe,) = pipeline.only_nodes_with_outputs("tagger").nodes
        inputs = {name for name in describe.inputs if not name.startswith("params:")}
        assert inputs == {*parts(2, stages[-1])}


def test_all_nodes_are_in_one_namespace_with_one_for_each_fold_in_it():
    pipeline = create_pipeline(2, STAGES)
    assert {node.namespace for node in pipeline.nodes} == {
        "training",
        "training.fold_1",
        "training.fold_2",
    }
    (join,) = (node for node in pipeline.nodes if node.short_name.endswith("join_histories"))
    assert list(join.inputs) == [
        "mel_history_1",
        "mel_pca_history_1",
        "mel_history_2",
        "mel_pca_history_2",
    ]
    assert all("." not in name for name in pipeline.all_outputs())


def test_the_stages_get_their_checkpoints_and_the_callbacks_from_the_catalog():
    inputs = create_pipeline(2, STAGES).inputs()
    stages = [f"{stage}_checkpoint_{fold}" for fold in (1, 2) for stage in ("mel", "mel_pca")]
    assert inputs >= {"callbacks", *stages}
