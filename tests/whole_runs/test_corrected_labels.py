"""From the labels that a run doubts to corrections, and to a run that reads them.

How many wrong labels a run finds is in docs/labels.md: the networks of the tests know too little.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.tracking import fingerprint
from whole_runs import TINY, kedro, make_tiny_project


@pytest.fixture(scope="module")
def first(finished_tiny_demo):
    """Return the outputs of a run on labels some of which are wrong."""
    return finished_tiny_demo.outputs


@pytest.fixture(scope="module")
def corrections(first):
    """Correct the wrong labels of the demo, and drop a clip."""
    clips = pd.read_csv(first / "02_intermediate" / "demo_clips.csv", keep_default_na=False)
    train = clips[clips["split"] == "train"]
    wrong = train[train["label"] != train["sound"]]
    assert len(wrong)
    dropped = train.loc[train["label"] == train["sound"], "fname"].iloc[0]
    table = wrong[["fname", "sound"]].rename(columns={"sound": "label"})
    return pd.concat([table, pd.DataFrame({"fname": [dropped], "label": [""]})])


@pytest.fixture(scope="module")
def second(first, corrections, tmp_path_factory):
    """Run again on the corrected labels."""
    project = make_tiny_project(tmp_path_factory.mktemp("corrected") / "checkout")
    outputs = project / "data" / "demo"
    shutil.copytree(first / "01_raw", outputs / "01_raw")
    corrections.to_csv(outputs / "01_raw" / "label_corrections.csv", index=False)
    finished = kedro(project, "run", "--env", "demo", **TINY, n_jobs=1)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return outputs


def table_of(outputs, name):
    return pd.read_csv(outputs / "08_reporting" / f"{name}.csv").set_index("fname")


def test_the_first_run_ranks_the_labels_of_all_clips(first):
    issues = table_of(first, "label_issues")
    assert len(issues) == 24
    assert issues["quality"].is_monotonic_increasing
    assert (issues["suggested"] != issues["label"]).all()


def test_the_second_run_has_the_corrected_labels(second, corrections):
    issues = table_of(second, "label_issues")
    changed = corrections[corrections["label"] != ""].set_index("fname")
    assert (issues.loc[changed.index, "label"] == changed["label"]).all()
    assert (issues.loc[changed.index, "correction"] == "changed").all()
    assert issues.loc[changed.index, "verified"].all()
    (dropped,) = corrections.loc[corrections["label"] == "", "fname"]
    assert dropped not in issues.index
    assert table_of(second, "rejected_clips").loc[dropped, "reason"].startswith("dropped")


def test_corrections_are_counted_and_change_the_fingerprint_of_the_clips(
    first, second, corrections
):
    from mlflow import MlflowClient

    counts = json.loads((second / "08_reporting" / "clip_counts.json").read_text())["train"]
    assert counts["labels_changed"] == len(corrections) - 1
    assert counts["labels_dropped"] == 1
    project = second.parents[1]
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fsat_kedro")
    runs = client.search_runs([experiment.experiment_id], "tags.env = 'demo'")
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.metrics["clips/train.labels_changed"] == counts["labels_changed"]
    before = pd.read_pickle(first / "02_intermediate" / "train_clips.pkl")
    assert parent.data.tags["fingerprint.train"] != fingerprint(before)


def test_labels_that_are_not_verified_are_trusted_by_every_fold_for_its_own(second):
    clips = pd.read_pickle(second / "02_intermediate" / "train_clips.pkl")
    folds = np.load(second / "06_models" / "train_folds.npy")
    verified = clips["verified"].to_numpy(bool)
    for fold in (1, 2):
        trust = np.load(second / "06_models" / f"fold_{fold}" / "label_trust.npy")
        trained = (folds != fold) & (folds > 0)
        assert np.isfinite(trust[trained]).all()
        assert np.isnan(trust[~trained]).all()
        assert (trust[trained & verified] == 1).all()


def test_scores_of_verified_clips_are_shown_beside_those_of_all(second):
    scores = pd.read_csv(second / "08_reporting" / "scores.csv").set_index("clips")
    clips = pd.read_pickle(second / "02_intermediate" / "train_clips.pkl")
    usable = clips[clips["status"] == "ok"]
    assert scores.loc["cross-validation", "n_clips"] == len(usable)
    assert scores.loc["cross-validation, verified clips", "n_clips"] == usable["verified"].sum()
