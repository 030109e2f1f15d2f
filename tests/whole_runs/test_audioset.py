"""A complete run with an encoder of the environment audioset, from a file of its weights.

The weights are random: the test is of how the parts fit together.
"""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from kill_and_resume import make_project
from torch_files import tensors_of, write_tensors

from fsat_kedro.data.synthetic import LABELS, synthesize
from whole_runs import kedro


def write_sounds(folder):
    """Write a sound of each label for each of two folds, in the layout of UrbanSound8K."""
    rng, rows = np.random.default_rng(0), []
    for fold in (1, 2):
        (folder / "audio" / f"fold{fold}").mkdir(parents=True)
        for number, label in enumerate(LABELS):
            name = f"{fold}0{number}-{number}-0-0.wav"
            wave = synthesize(label, 0.7, rng)
            soundfile.write(folder / "audio" / f"fold{fold}" / name, wave, 44_100)
            recording = int(name.partition("-")[0])
            rows.append((name, recording, 0, 0.7, 1, fold, number, label))
    columns = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    (folder / "metadata").mkdir()
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(folder / "metadata" / "UrbanSound8K.csv", index=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Train two folds in a copy of the project."""
    import keras

    from fsat_kedro.modelling.mobilenet_v3 import build_mobilenet_v3

    folder = tmp_path_factory.mktemp("audioset")
    project = make_project(folder / "checkout")
    write_sounds(folder / "raw")
    keras.utils.set_random_seed(0)
    encoder = build_mobilenet_v3(0.4, n_mels=128, name="encoder")
    write_tensors(folder / "mn04.pt", tensors_of(encoder, keras.ops.convert_to_numpy))
    parameters = {
        "raw_dir": folder / "raw",
        "model.weights": folder / "mn04.pt",
        "model.frozen_stages": 16,
        "n_jobs": 1,
        "training.phases.cosine.epochs": 1,
        "training.phases.cosine.warm_up": 0,
    }
    finished = kedro(project, "run", "--env", "audioset", **parameters)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return project


@pytest.fixture(scope="module")
def outputs(project):
    return project / "data" / "audioset"


def test_every_clip_is_predicted_and_scored(outputs):
    folder = outputs / "07_model_output"
    probabilities = np.load(folder / "oof_probabilities.npy")
    assert probabilities.shape == (16, len(LABELS))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    scores = json.loads((folder / "cv_scores.json").read_text())
    assert [fold["n_clips"] for fold in scores["per_fold"]] == [8, 8]
    assert 0 <= scores["accuracy"] <= scores["map_at_3"] <= 1


def test_there_is_one_stage_of_a_single_phase_and_nothing_of_summary_features(outputs):
    files = {path.name for path in outputs.rglob("*") if path.is_file()}
    marks = ("summary", "components", "projector", "pca")
    assert not {name for name in files if any(mark in name for mark in marks)}
    for fold in ("fold_1", "fold_2"):
        history = pd.read_csv(outputs / "06_models" / fold / "mel_history.csv")
        assert history["phase"].tolist() == ["cosine"]
        assert np.isfinite(history[["loss", "val_loss", "val_map_at_3"]]).all(axis=None)


def test_a_training_ends_with_the_conversion_of_its_networks(outputs):
    pytest.importorskip("openvino")
    converted = {path.relative_to(outputs) for path in outputs.rglob("*.openvino.zip")}
    assert set(map(str, converted)) == {
        f"06_models/{fold}/mel.openvino.zip" for fold in ("fold_1", "fold_2")
    }


def test_the_ensemble_tags_a_sound(project, outputs):
    sound = min((project.parent / "raw").rglob("*.wav"))
    finished = kedro(project, "tag", "--env", "audioset", sound)
    assert finished.returncode == 0, finished.stderr
    assert sound.name in finished.stdout
    assert sum(label in finished.stdout for label in LABELS) == 3
