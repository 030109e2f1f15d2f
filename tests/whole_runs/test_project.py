"""Complete runs by the commands that users type, in a project folder of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs

import nbformat
import numpy as np
import pandas as pd
import pytest
import requests
import soundfile
from nbclient import NotebookClient

from fsat_kedro.data.synthetic import LABELS, synthesize
from fsat_kedro.hooks.locks import lock
from fsat_kedro.inference.tagger import Sound, Tagger
from whole_runs import SHORT, kedro, many_kedros


@pytest.fixture(scope="module")
def project(finished_demo):
    """A checkout in which the demo was run."""
    return finished_demo.project


@pytest.fixture(scope="module")
def demo(project):
    """The outputs of a short run of everything on the demo."""
    return project / "data" / "demo"


@pytest.fixture(scope="module")
def mlflow_runs(project, demo):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fsat_kedro")
    return client, client.search_runs([experiment.experiment_id])


def test_every_test_clip_has_three_tags_even_an_empty_one(demo):
    submission = pd.read_csv(demo / "07_model_output" / "submission.csv")
    listed = pd.read_csv(demo / "01_raw/FSDKaggle2018.meta/test_post_competition_scoring_clips.csv")
    assert list(submission) == ["fname", "label"]
    assert submission["fname"].tolist() == listed["fname"].tolist()
    assert len(submission) == 8 + 3
    for tags in submission["label"].str.split():
        assert len(set(tags)) == 3
        assert set(tags) <= set(LABELS)
    rejected = pd.read_csv(demo / "08_reporting" / "rejected_clips.csv")
    assert rejected["fname"].isin(submission["fname"]).all()
    assert rejected["reason"].tolist() == ["no samples"] * 3


def test_a_run_shows_no_messages_of_libraries(finished_demo):
    # TensorFlow reports its processor and missing GPUs, in every process that imports it.
    assert finished_demo.messages.read_text() == ""


def test_scores_are_saved_by_usage_and_by_fold(demo):
    test = json.loads((demo / "07_model_output" / "test_scores.json").read_text())
    cv = json.loads((demo / "07_model_output" / "cv_scores.json").read_text())
    for metric in ("map_at_3", "accuracy"):
        assert set(test[metric]) == {"public", "private", "pooled"}
        for part, score in test[metric].items():
            assert 0 <= test[f"{metric}_low"][part] <= score <= test[f"{metric}_high"][part] <= 1
        assert 0 <= cv[f"{metric}_low"] <= cv[metric] <= cv[f"{metric}_high"] <= 1
        assert cv[metric] == pytest.approx(np.mean([fold[metric] for fold in cv["per_fold"]]))
    assert len(cv["per_fold"]) == 2


def test_probabilities_of_every_clip_sum_to_one(demo):
    for name, n_clips in (("test_probabilities", 11), ("oof_probabilities", 24)):
        probabilities = np.load(demo / "07_model_output" / f"{name}.npy")
        assert probabilities.shape == (n_clips, len(LABELS))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_every_stage_of_every_fold_saves_weights_and_a_history(demo):
    for fold in ("fold_1", "fold_2"):
        for stage in ("mel", "mel_pca"):
            assert (demo / "06_models" / fold / f"{stage}.weights.h5").stat().st_size > 0
            history = pd.read_csv(demo / "06_models" / fold / f"{stage}_history.csv")
            assert history["epoch"].tolist() == [1, 2]
            assert history["phase"].tolist() == ["cyclic", "high"]


def test_the_report_has_the_sound_of_each_misclassified_and_each_doubtful_clip(demo):
    page = (demo / "08_reporting" / "report.html").read_text("utf-8")
    misclassified = pd.read_csv(demo / "08_reporting" / "misclassified_clips.csv")
    issues = pd.read_csv(demo / "08_reporting" / "label_issues.csv")
    shown = {*misclassified["fname"], *issues.loc[issues["issue"], "fname"]}
    assert page.count('<article class="card clip"') == len(shown) > 0
    assert page.count("<audio") == len(shown) + len(LABELS)
    assert "11 test clips, 3 rejected, 8 labelled" in page


def test_mlflow_has_a_child_run_per_fold_with_metrics_by_epoch(mlflow_runs, demo):
    client, runs = mlflow_runs
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert set(children) == {"fold_1", "fold_2"}
    for fold, child in children.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for stage in ("mel", "mel_pca"):
            history = pd.read_csv(demo / "06_models" / fold / f"{stage}_history.csv")
            logged = client.get_metric_history(child.info.run_id, f"{stage}/val_loss")
            assert [metric.step for metric in logged] == history["epoch"].tolist()
            assert [metric.value for metric in logged] == pytest.approx(history["val_loss"])


def test_a_link_of_the_run_compares_its_folds_by_their_scores(mlflow_runs, demo):
    client, runs = mlflow_runs
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    cv = json.loads((demo / "07_model_output" / "cv_scores.json").read_text())["per_fold"]
    test = pd.read_csv(demo / "07_model_output" / "fold_test_scores.csv")
    for row, tested in zip(cv, test.itertuples(), strict=True):
        child = children[f"fold_{row['fold']}"]
        assert child.data.metrics["cv/map_at_3"] == row["map_at_3"]
        assert child.data.metrics["test/map_at_3"] == pytest.approx(tested.map_at_3, abs=1e-4)
        assert {file.path for file in client.list_artifacts(child.info.run_id, "reports")} == {
            "reports/mel_learning_curves.png",
            "reports/mel_pca_learning_curves.png",
        }
    link = parent.data.tags["mlflow.note.content"]
    (search_filter,) = parse_qs(link.partition("?")[2].rstrip(")"))["searchFilter"]
    compared = client.search_runs([parent.info.experiment_id], search_filter)
    assert {run.info.run_name for run in compared} == set(children)


def test_mlflow_has_the_scores_parameters_and_outputs_of_the_run(mlflow_runs, demo):
    client, runs = mlflow_runs
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    scores = json.loads((demo / "07_model_output" / "test_scores.json").read_text())
    assert parent.info.status == "FINISHED"
    for score in ("map_at_3", "map_at_3_low", "map_at_3_high", "n_clips"):
        assert parent.data.metrics[f"test/{score}.pooled"] == scores[score]["pooled"]
    assert parent.data.params["training.phases.cyclic.epochs"] == "1"
    assert parent.data.params["predictions_per_clip"] == "4"  # 2 folds × 2 lengths
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "history",
        "predictions",
        "reports",
        "scores",
    }


@pytest.fixture(scope="module")
def sounds(demo):
    """The test clips of the demo, three of them without a sample."""
    return demo / "01_raw" / "FSDKaggle2018.audio_test"


@pytest.fixture(scope="module")
def best_tags(demo):
    """The three first tags of every test clip that is not rejected, with their probabilities."""
    probabilities = np.load(demo / "07_model_output" / "test_probabilities.npy")
    clips = pd.read_pickle(demo / "02_intermediate" / "test_clips.pkl")
    labels = json.loads((demo / "06_models" / "classes.json").read_text())["labels"]
    return {
        fname: {labels[index]: row[index] for index in np.argsort(-row)[:3]}
        for fname, status, row in zip(clips["fname"], clips["status"], probabilities, strict=True)
        if status == "ok"
    }


def assert_tags_equal(row, expected):
    assert [row[f"tag_{place}"] for place in (1, 2, 3)] == list(expected)
    probabilities = [row[f"probability_{place}"] for place in (1, 2, 3)]
    assert probabilities == pytest.approx(list(expected.values()), rel=1e-3)


def test_a_folder_of_sounds_gets_the_tags_of_the_test_clips(
    project, demo, sounds, best_tags, tmp_path
):
    # Tagging needs only the models, and no setting of the training.
    shutil.copytree(demo / "06_models", tmp_path / "06_models")
    finished = kedro(project, "run", "--pipelines", "tag", tag_dir=sounds, data_dir=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "8 sounds tagged, 3 rejected" in finished.stdout
    assert "Workflow tracking" not in finished.stdout + finished.stderr  # A message of Kedro-Viz.
    tags = pd.read_csv(tmp_path / "07_model_output" / "tags.csv").set_index("fname")
    assert set(tags.index) == {path.name for path in sounds.iterdir()}
    assert tags.loc[~tags.index.isin(list(best_tags)), "reason"].tolist() == ["no samples"] * 3
    for fname, expected in best_tags.items():
        assert_tags_equal(tags.loc[fname], expected)


def test_one_file_is_tagged_on_the_terminal(project, demo, sounds, best_tags):
    fname, expected = next(iter(best_tags.items()))
    finished = kedro(project, "tag", "--env", "demo", str(sounds / fname))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    lines = [f"  {share:6.1%}  {label}" for label, share in expected.items()]
    assert finished.stdout.splitlines() == [str(sounds / fname), *lines]
    assert finished.stderr == ""


def test_the_model_is_registered_and_served_with_the_same_tags(
    project, mlflow_runs, sounds, best_tags
):
    client, _ = mlflow_runs
    (version, *_) = client.search_model_versions("name='fsat_kedro'")
    given, found = list(best_tags)[:2]
    rows = [
        {"fname": given, "audio": b64encode((sounds / given).read_bytes()).decode()},
        {"fname": "broken.wav", "audio": b64encode(b"RIFF, and no more").decode()},
        {"fname": "broken.wav", "audio": "no base64"},
        {"fname": found},
        {"fname": "../FSDKaggle2018.meta/train_post_competition.csv"},
    ]
    with served(project, f"models:/fsat_kedro/{version.version}", sounds) as address:
        answer = requests.post(f"{address}/invocations", json={"dataframe_records": rows})
    assert answer.status_code == 200, answer.text
    first, broken, no_base64, second, outside = answer.json()["predictions"]
    assert_tags_equal(first, best_tags[given])
    assert_tags_equal(second, best_tags[found])
    assert broken["reason"].startswith("not readable as sound")
    assert no_base64["reason"].startswith("its audio is not in base64")
    assert outside["reason"] == "not below the server's FSAT_KEDRO_SOUNDS_DIR"
    assert outside["tag_1"] is None


@contextmanager
def served(project, model, sounds):
    """Serve a registered model in a separate process, and yield its url."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
        "FSAT_KEDRO_SOUNDS_DIR": str(sounds),
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    with (project / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--model-uri", model, "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not is_up(address):
            assert server.poll() is None, (project / "serve.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def is_up(address):
    try:
        return requests.get(f"{address}/ping").ok
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("name", ["look_at_the_data", "compare_folds"])
def test_the_notebooks_run_on_the_demo(project, demo, name):
    notebook = nbformat.read(project / "notebooks" / f"{name}.ipynb", as_version=4)
    folder = {"metadata": {"path": str(project / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", resources=folder).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


def test_only_missing_outputs_are_computed_again_with_equal_values(project, demo):
    weights = demo / "06_models" / "fold_1" / "mel_pca.weights.h5"
    trained = weights.stat().st_mtime_ns
    lost = demo / "07_model_output" / "fold_1" / "test.npy"
    before = np.load(lost)
    lost.unlink()
    finished = kedro(project, "run", "--env", "demo", "--only-missing-outputs", **SHORT)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert weights.stat().st_mtime_ns == trained
    np.testing.assert_allclose(np.load(lost), before, rtol=1e-5)


def test_new_predictions_of_a_finished_training_agree_and_train_nothing(
    project, finished_demo, sounds, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(finished_demo.outputs, data)
    trained = {path: path.stat().st_mtime_ns for path in data.rglob("*.weights.h5")}
    before = predictions_of(data)
    finished = kedro(
        *(project, "run", "--env", "demo", "--pipelines", "predictions"),
        **{**SHORT, "test_time_crops.subset": "thinned", "data_dir": data},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    after = predictions_of(data)
    labels = json.loads((data / "06_models" / "classes.json").read_text())["labels"]
    scores = pd.read_csv(data / "08_reporting" / "scores.csv").set_index("clips")["accuracy"]
    page = (data / "08_reporting" / "report.html").read_text("utf-8")
    for split, name in (("train", "cross-validation"), ("test", "test pooled")):
        assert not np.allclose(after[split], before[split])
        clips = pd.read_pickle(data / "02_intermediate" / f"{split}_clips.pkl")
        best = np.array(labels)[after[split].argmax(axis=1)]
        rows = (clips["label"].notna() & (clips["status"] == "ok")).to_numpy()
        accuracy = (clips["label"] == best)[rows].mean()
        assert scores[name] == pytest.approx(accuracy, abs=1e-6)
        assert f">{100 * accuracy:.1f}&#8239;%" in page
    tagger = Tagger.load(data / "06_models")
    assert tagger.settings.test_time_crops.subset == "thinned"
    clips = pd.read_pickle(data / "02_intermediate" / "test_clips.pkl")
    row = clips.index[clips["status"] == "ok"][0]
    sound = Sound(clips["fname"][row], str(sounds / clips["fname"][row]))
    np.testing.assert_allclose(
        tagger.predict([sound]).probabilities[0], after["test"][row], rtol=1e-3
    )


def predictions_of(data):
    """Return the out-of-fold and the test probabilities in a data folder."""
    names = {"train": "oof", "test": "test"}
    folder = data / "07_model_output"
    return {split: np.load(folder / f"{name}_probabilities.npy") for split, name in names.items()}


def test_the_second_of_two_concurrent_runs_stops(project, demo):
    with lock({"test_fold_1"}, set(), demo):
        finished = kedro(project, "run", "--env", "demo", "--pipelines", "inference")
        other = kedro(project, "run", "--env", "demo", "--pipelines", "preprocessing", **SHORT)
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"Error: another run reads or writes test_fold_1 in {demo}; the last to write it was "
    )
    assert other.returncode == 0


@pytest.fixture
def messy(tmp_path):
    """A raw folder with four valid training clips and three that are rejected."""
    raw = tmp_path / "raw"
    for split in ("train", "test"):
        (raw / f"audio_{split}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        name = f"{number}.wav"
        wave = synthesize(LABELS[number % 2], 0.5, rng)
        soundfile.write(raw / "audio_train" / name, wave, 44_100)
        soundfile.write(raw / "audio_test" / name, wave, 44_100)
    (raw / "audio_train" / "text.wav").write_text("no sound")
    (raw / "audio_test" / "new.wav").touch()
    rows = [f"{number}.wav,{LABELS[number % 2]}" for number in range(4)]
    rows += [f"text.wav,{LABELS[0]}", f"gone.wav,{LABELS[0]}", f"../0.wav,{LABELS[0]}"]
    (raw / "train.csv").write_text("\n".join(["fname,label", *rows]))
    (raw / "sample_submission.csv").write_text("fname\n0.wav\n1.wav\n2.wav\n3.wav\n")
    return raw


def test_too_many_rejected_clips_stop_the_run_and_are_listed_in_a_table(project, messy, tmp_path):
    (tmp_path / "data" / "02_intermediate").mkdir(parents=True)
    (tmp_path / "data" / "02_intermediate" / "train_clips.pkl").write_bytes(b"of an earlier run")
    folders = {"raw_dir": messy, "data_dir": tmp_path / "data", "n_jobs": 1}
    finished = kedro(project, "run", "--pipelines", "preprocessing,features", **folders)
    assert finished.returncode == 1
    assert "3 of 7 clips rejected" in finished.stderr.strip().splitlines()[-1]
    rejected = pd.read_csv(tmp_path / "data" / "08_reporting" / "rejected_clips.csv")
    assert rejected["fname"].tolist() == ["text.wav", "gone.wav", "../0.wav"]
    assert not list((tmp_path / "data").glob("04_feature/*"))
    again = ("run", "--pipelines", "preprocessing", "--only-missing-outputs")
    finished = kedro(project, *again, **folders)
    assert finished.returncode == 1
    assert "3 of 7 clips rejected" in finished.stderr.strip().splitlines()[-1]


def test_rejected_clips_are_counted_in_the_last_lines_and_in_mlflow(project, messy, tmp_path):
    from mlflow import MlflowClient

    parameters = {"raw_dir": messy, "data_dir": tmp_path / "data", "rejection.max_fraction": 0.5}
    finished = kedro(project, "run", "--pipelines", "preprocessing", **parameters)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    train, test, path = finished.stdout.strip().splitlines()[-3:]
    assert "Traceback" not in finished.stdout
    assert "train: 7 clips, 3 rejected (" in train
    assert "listed, but not there: 1" in train
    assert test.endswith("test: 4 clips, 0 rejected, 1 unlisted")
    assert path.endswith("08_reporting/rejected_clips.csv")
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fsat_kedro")
    (run, *_) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["clips/train.rejected"] == 3
    assert run.data.metrics["clips/test.unlisted"] == 1


def test_the_next_run_ends_a_killed_run_in_mlflow(project, demo):
    from mlflow import MlflowClient

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fsat_kedro").experiment_id
    host = socket.gethostname()
    ended, other, alive = (
        client.create_run(experiment, tags={"process": name}).info.run_id
        for name in (f"{process.pid}@{host}", f"{process.pid}@elsewhere", f"{os.getpid()}@{host}")
    )
    kedro(project, "run", "--env", "demo", "--nodes", "reporting.tabulate_scores")
    assert [client.get_run(run).info.status for run in (ended, other, alive)] == [
        "KILLED",
        "RUNNING",
        "RUNNING",
    ]


def test_a_data_set_in_the_layout_of_esc50_keeps_its_folds(project, tmp_path, rng):
    raw = tmp_path / "raw"
    (raw / "audio").mkdir(parents=True)
    (raw / "meta").mkdir()
    rows = [(f"{i}.wav", i % 5 + 1, LABELS[i % 2]) for i in range(10)]
    for fname, _, label in rows:
        soundfile.write(raw / "audio" / fname, synthesize(label, 0.5, rng), 44_100)
    table = pd.DataFrame(rows, columns=["filename", "fold", "category"])
    table.to_csv(raw / "meta" / "esc50.csv", index=False)
    finished = kedro(
        project,
        *("run", "--env", "esc50", "--to-nodes", "training.split_folds"),
        raw_dir=raw,
        data_dir=tmp_path / "data",
        n_jobs=1,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    folds = np.load(tmp_path / "data" / "06_models" / "train_folds.npy")
    assert folds.tolist() == table["fold"].tolist()


def test_the_registry_lists_all_pipelines(project):
    listed = kedro(project, "registry", "list").stdout
    steps = ("preprocessing", "features", "training", "inference", "reporting")
    for name in ("download", "demo_data", "predictions", "tag", *steps):
        assert f"- {name}\n" in listed


USER_ERRORS = [
    (["--env", "nowhere"], {}, "unknown environment 'nowhere'"),
    ([], {"folds.n_fold": 5}, "unknown parameter 'folds.n_fold'"),
    ([], {"folds.n_folds": 1}, "parameter 'folds.n_folds' is 1"),
    (
        [],
        {"model.weights": "gone.h5"},
        "'gone.h5' is neither none, imagenet, audioset nor a file",
    ),
    (
        [],
        {"raw_dir": "nothing/here", "model.weights": "null"},
        "nothing/here is not a folder",
    ),
    (["--pipeline", "demo_data"], {}, "kedro run --env demo"),
    (["--pipelines", "tag"], {}, "tag_dir is not set"),
    (["--pipelines", "tag"], {"tag_dir": "nothing"}, "nothing is not a folder"),
    (["--pipelines", "tag"], {"tag_dir": "src"}, "no trained ensemble in"),
    ([], {"raw_dir": "s3://bucket"}, "raw_dir is s3://bucket, but has to be a folder"),
    ([], {"data_dir": "nowhere://bucket"}, "nowhere://bucket cannot be used: Protocol not"),
    (
        ["--pipelines", "download"],
        {"download.record": "http://127.0.0.1:9/record"},
        "the record http://127.0.0.1:9/record cannot be read",
    ),
]
"""Arguments and parameters of `kedro run`, and what the message says."""


@pytest.fixture(scope="module")
def answers(project, tmp_path_factory):
    commands = [(("run", *arguments), parameters) for arguments, parameters, _ in USER_ERRORS]
    return many_kedros(project, commands, tmp_path_factory.mktemp("answers"))


@pytest.mark.parametrize("number", range(len(USER_ERRORS)), ids=[case[2] for case in USER_ERRORS])
def test_a_user_error_is_one_message(answers, number):
    finished = answers[number]
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert USER_ERRORS[number][2] in last
    assert "Traceback" not in finished.stdout + finished.stderr


def test_a_training_without_its_initial_weights_stops_before_the_first_node(
    project, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # Nothing answers there.
    finished = kedro(project, "run", raw_dir="nothing/here", data_dir=tmp_path / "data")
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: the ImageNet weights of the backbone could not be downloaded: ")
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5" in last
    assert "Traceback" not in finished.stdout + finished.stderr
