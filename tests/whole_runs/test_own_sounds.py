"""From a folder of one's own sounds, a folder for each class, to tags and to a timeline."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.data.synthetic import LABELS, synthesize
from whole_runs import TINY, kedro, make_tiny_project

CLASSES = LABELS[:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write eight sounds of each class, and a recording of all."""
    folder, rng, recording = tmp_path_factory.mktemp("own_sounds"), np.random.default_rng(0), []
    for label in CLASSES:
        (folder / "raw" / label).mkdir(parents=True)
        for number in range(8):
            recording.append(synthesize(label, 0.6, rng))
            soundfile.write(folder / "raw" / label / f"{number}.wav", recording[-1], 44_100)
    (folder / "recordings" / "deep").mkdir(parents=True)
    long = np.concatenate(recording)
    soundfile.write(folder / "recordings" / "deep" / "long.flac", long, 44_100)
    (folder / "recordings" / "empty.wav").touch()
    return folder


@pytest.fixture(scope="module")
def project(folder):
    """Train on the folder, with no layout named."""
    project = make_tiny_project(folder / "checkout")
    short = {name: value for name, value in TINY.items() if not name.startswith("demo.")}
    settings = {"model.weights": "none", "folds.n_folds": 2, "n_jobs": 1, "raw_dir": folder / "raw"}
    # One stage of a few steps: the network does not matter here.
    settings |= {"model.summary_features": "false", "training.label_noise.rounds": 0}
    settings["training.phases.high.epochs"] = 0
    settings["data_dir"] = folder / "results"
    finished = kedro(project, "run", **{**short, **settings})
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "folder_per_class" in finished.stdout
    return project


def test_the_folders_are_the_labels(project, folder):
    predictions = pd.read_pickle(folder / "results" / "02_intermediate" / "train_clips.pkl")
    assert predictions.groupby("label").size().to_dict() == dict.fromkeys(CLASSES, 8)
    assert all(row.fname.startswith(row.label) for row in predictions.itertuples())


def test_the_recordings_of_a_folder_have_timelines(project, folder):
    finished = kedro(
        *(project, "run", "--pipelines", "tag"),
        **{"tag_dir": folder / "recordings", "data_dir": folder / "results"},
        **{"n_jobs": 1, "tag.timeline": "true", "tag.threshold": 0.01, "tag.window_seconds": 0.6},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    output = folder / "results" / "07_model_output"
    recordings = pd.read_csv(output / "recordings.csv", keep_default_na=False).set_index("fname")
    assert recordings["reason"].to_dict() == {"deep/long.flac": "", "empty.wav": "an empty file"}
    segments = pd.read_csv(output / "recording_segments.csv")
    assert set(segments["fname"]) == {"deep/long.flac"}
    assert recordings.loc["deep/long.flac", "segments"] == len(segments)
    seconds = 24 * 0.6
    assert segments["end"].max() == pytest.approx(seconds, abs=1e-3)
    windows = pd.read_csv(output / "recording_windows.csv")
    assert len(windows) == 29
    assert windows[["probability_1", "probability_2", "probability_3"]].sum(axis=1).to_numpy() == (
        pytest.approx(np.ones(29), abs=1e-4)
    )
    tracks = [path for path in (output / "audacity_labels").rglob("*") if path.is_file()]
    assert [path.name for path in tracks] == ["long.flac.labels.txt"]
    lines = [line.split("\t") for line in tracks[0].read_text().splitlines()]
    assert [line[2] for line in lines] == segments["label"].tolist()


def test_a_recording_has_the_same_timeline_on_the_terminal(project, folder, tmp_path):
    recording = folder / "recordings" / "deep" / "long.flac"
    finished = kedro(
        *(project, "tag", "--timeline", "--data-dir", folder / "results"),
        *("--output-dir", tmp_path, recording),
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    first, *lines = finished.stdout.splitlines()
    assert first == str(recording)
    assert f"  written: {tmp_path}/long.flac.labels.txt" in lines
    windows = pd.read_csv(tmp_path / "long.flac.windows.csv")
    assert windows["end"].iloc[-1] == pytest.approx(24 * 0.6, abs=1e-3)
    assert set(windows["tag_1"]) <= set(CLASSES)
