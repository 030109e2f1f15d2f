"""Runs in an MLflow database of this folder."""

import logging
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import fsspec
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fsat_kedro.errors import InputError
from fsat_kedro.tracking import TrackedRun, _commit, fingerprint, flatten

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder for one database, which takes seconds to create."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def client(project):
    return MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


@pytest.fixture
def start(project, request):
    """Open runs in an experiment of the test."""

    def start_run(**parameters):
        return TrackedRun(
            tracking_uri="sqlite:///mlflow.db",
            experiment=request.node.name,
            project_path=project,
            name="demo",
            tags={"env": "demo"},
            parameters=parameters,
        )

    return start_run


@pytest.fixture
def find_runs(client, request):
    """Return the runs of the test's experiment by their names."""

    def find():
        experiment = client.get_experiment_by_name(request.node.name)
        runs = client.search_runs([experiment.experiment_id])
        return {run.info.run_name: run for run in runs}

    return find


def steps_of(client, run, metric):
    return [(x.step, x.value) for x in client.get_metric_history(run.info.run_id, metric)]


def fail(*_, **__):
    raise MlflowException("database is locked")


def test_the_parent_run_has_tags_and_flat_parameters(start, find_runs, project):
    start(model={"width": 1.0, "weights": None}, seed=3)
    (run,) = find_runs().values()
    assert run.info.run_name == "demo"
    assert run.data.params == {"model.width": "1.0", "model.weights": "None", "seed": "3"}
    assert run.data.tags["env"] == "demo"
    assert run.data.tags["process"] == f"{os.getpid()}@{HOST}"
    assert run.info.artifact_uri.startswith((project / "mlruns").as_uri())


def test_folds_have_child_runs_with_the_same_id_in_every_process(start, find_runs):
    run = start()
    run.open_fold("fold_1")
    pickle.loads(pickle.dumps(run)).set_tag("backend", "jax", "fold_1")
    run.open_fold("fold_2")
    runs = find_runs()
    parent = runs.pop("demo")
    assert set(runs) == {"fold_1", "fold_2"}
    for name, child in runs.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["fold"] == name
    assert runs["fold_1"].data.tags["backend"] == "jax"
    assert "backend" not in parent.data.tags


def test_a_link_from_the_parent_run_compares_its_folds_only(start, find_runs, client):
    for _ in range(2):
        run = start()
        for fold in ("fold_1", "fold_2"):
            run.open_fold(fold)
    runs = find_runs()
    parent = client.get_run(runs["fold_1"].data.tags["mlflow.parentRunId"])
    link = parent.data.tags["mlflow.note.content"]
    (query,) = parse_qs(link.partition("?")[2].rstrip(")"))["searchFilter"]
    found = client.search_runs([parent.info.experiment_id], query)
    assert sorted(run.info.run_name for run in found) == ["fold_1", "fold_2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {parent.info.run_id}


def test_the_url_leads_to_the_parent_run(start, find_runs):
    run = start()
    parent = find_runs()["demo"].info
    page = f"#/experiments/{parent.experiment_id}/runs/{parent.run_id}?"
    assert run.url.startswith(f"start `mlflow ui`, then open http://127.0.0.1:5000/{page}")
    run.tracking_uri = "http://server:5000"
    assert run.url.startswith(f"http://server:5000/{page}")


def test_abandoned_runs_of_processes_that_have_ended_are_closed(start, client, request):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    experiment = client.create_experiment(request.node.name)
    processes = (f"{process.pid}@{HOST}", f"{process.pid}@elsewhere", f"{os.getpid()}@{HOST}")
    runs = [client.create_run(experiment, tags={"process": name}) for name in processes]
    unknown = client.create_run(experiment)
    start()
    status = [client.get_run(run.info.run_id).info.status for run in (*runs, unknown)]
    assert status == ["KILLED", "RUNNING", "RUNNING", "RUNNING"]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_end_gives_all_runs_a_status(start, find_runs, status):
    run = start()
    run.open_fold("fold_1")
    assert {each.info.status for each in find_runs().values()} == {"RUNNING"}
    run.end(status)
    assert {each.info.status for each in find_runs().values()} == {status}


def test_only_numbers_become_metrics(start, find_runs):
    run = start()
    run.log_metrics(
        {"map_at_3": {"pooled": 0.9, "public": 1}, "per_fold": [{"fold": 1}], "name": "a"},
        prefix="test",
    )
    assert find_runs()["demo"].data.metrics == {
        "test/map_at_3.pooled": 0.9,
        "test/map_at_3.public": 1,
    }


def test_scores_of_folds_go_to_the_folds_that_this_run_trains(start, find_runs):
    run = start()
    run.open_fold("fold_2")
    rows = [{"fold": i, "map_at_3": i / 10, "accuracy": 0.5, "n_clips": 4} for i in (1, 2)]
    run.log_fold_scores(rows, prefix="cv")
    runs = find_runs()
    assert set(runs) == {"demo", "fold_2"}
    assert runs["fold_2"].data.metrics == {"cv/map_at_3": 0.2, "cv/accuracy": 0.5}
    assert runs["demo"].data.metrics == {}


def test_epochs_are_logged_at_their_steps(start, find_runs, client):
    log_epoch = start().epoch_logger("fold_1", "mel")
    log_epoch(0, {"loss": 2.0})
    log_epoch(1, {"loss": 1.0, "val_loss": 1.5})
    child = find_runs()["fold_1"]
    assert steps_of(client, child, "mel/loss") == [(1, 2.0), (2, 1.0)]
    assert steps_of(client, child, "mel/val_loss") == [(2, 1.5)]


def test_a_resumed_stage_logs_no_epoch_twice(start, find_runs, client):
    run = start()
    log_epoch = run.epoch_logger("fold_1", "mel")
    for epoch in range(2):
        log_epoch(epoch, {"loss": 2.0 - epoch})
    log_epoch = pickle.loads(pickle.dumps(run)).epoch_logger("fold_1", "mel")
    for epoch in range(3):
        log_epoch(epoch, {"loss": 2.0 - epoch})
    run.epoch_logger("fold_1", "mel_pca")(0, {"loss": 5.0})
    child = find_runs()["fold_1"]
    assert steps_of(client, child, "mel/loss") == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert steps_of(client, child, "mel_pca/loss") == [(1, 5.0)]


@pytest.mark.parametrize("scheme", ["", "memory:/"])
def test_a_file_or_an_object_is_logged_under_its_name(start, find_runs, client, tmp_path, scheme):
    path = f"{scheme}{tmp_path}/scores.json"
    with fsspec.open(path, "w") as file:
        file.write("{}")
    run = start()
    run.log_artifact(path, "scores")
    run.log_artifact(path, "history", "fold_1")
    for name, folder in (("demo", "scores"), ("fold_1", "history")):
        run_id = find_runs()[name].info.run_id
        assert [file.path for file in client.list_artifacts(run_id)] == [folder]
        copy = client.download_artifacts(run_id, f"{folder}/scores.json", str(tmp_path))
        assert Path(copy).read_text() == "{}"


def test_learning_curves_are_a_figure_of_the_fold(start, find_runs, client):
    history = pd.DataFrame(
        {"epoch": [1, 2], "phase": "cyclic", "val_loss": [2.0, 1.0], "val_map_at_3": [0.1, 0.5]}
    )
    start().log_learning_curves("mel", history, "fold_1")
    files = client.list_artifacts(find_runs()["fold_1"].info.run_id, "reports")
    assert [file.path for file in files] == ["reports/mel_learning_curves.png"]


def test_a_failure_of_mlflow_is_a_warning(start, monkeypatch, caplog, tmp_path):
    run = start()
    log_epoch = run.epoch_logger("fold_1", "mel")
    for method in ("create_run", "log_batch", "set_tag", "log_artifact", "set_terminated"):
        monkeypatch.setattr(MlflowClient, method, fail)
    monkeypatch.setattr(MlflowClient, "get_metric_history", fail)
    steps = [
        lambda: run.open_fold("fold_2"),
        lambda: run.set_tag("backend", "jax"),
        lambda: run.log_metrics({"loss": 1.0}, prefix="cv"),
        lambda: log_epoch(0, {"loss": 1.0}),
        lambda: run.epoch_logger("fold_1", "mel")(0, {"loss": 1.0}),
        lambda: run.log_artifact(str(tmp_path), "reports"),
        lambda: run.log_artifact("memory://no/such/object", "reports"),
        lambda: run.end("FINISHED"),
    ]
    for step in steps:
        caplog.clear()
        step()
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        assert caplog.messages[0].startswith(
            "MLflow logging failed; the outputs on disk are complete: "
        )


def test_a_run_that_cannot_be_opened_is_an_error(start, monkeypatch):
    monkeypatch.setattr(MlflowClient, "create_run", fail)
    with pytest.raises(MlflowException, match="database is locked"):
        start()


def test_processes_on_other_hosts_need_a_server(start):
    run = start()
    run.require_server({HOST})
    with pytest.raises(InputError, match=r"mlflow\.db.*on a, b cannot.*mlflow server"):
        run.require_server({"b", "a", HOST})
    run.tracking_uri = "http://server:5000"
    run.require_server({"a", HOST})


@pytest.fixture
def clips():
    return pd.DataFrame(
        {
            "fname": ["b.wav", "a.wav"],
            "label": ["Bark", "Meow"],
            "verified": [True, False],
            "usage": ["public", "private"],
            "fold": [1, 2],
            "status": "ok",
            "start": [0, 10],
            "end": [100, 90],
            "seconds": [0.1, 0.2],
        }
    )


def test_the_fingerprint_is_of_the_clips_in_any_order(clips):
    assert fingerprint(clips) == fingerprint(clips[::-1].assign(seconds=0))
    assert len(fingerprint(clips)) == 16


@pytest.mark.parametrize(("column", "value"), [("label", "Oboe"), ("end", 99), ("status", "gone")])
def test_another_label_or_interval_is_another_fingerprint(clips, column, value):
    changed = clips.copy()
    changed.loc[0, column] = value
    assert fingerprint(changed) != fingerprint(clips)


def test_the_commit_has_a_plus_for_changed_files(tmp_path):
    def git(*arguments):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        finished = subprocess.run(
            ["git", "-C", tmp_path, *names, *arguments], check=True, capture_output=True, text=True
        )
        return finished.stdout.strip()

    assert _commit(tmp_path) == ""
    git("init")
    assert _commit(tmp_path) == ""
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    commit = git("rev-parse", "HEAD")
    assert _commit(tmp_path) == commit
    (tmp_path / "untracked").touch()
    assert _commit(tmp_path) == commit
    (tmp_path / "file").write_text("two")
    assert _commit(tmp_path) == f"{commit}+"
    git("add", "file")
    assert _commit(tmp_path) == f"{commit}+"


def test_nested_mappings_become_dotted_keys():
    scores = {"map_at_3": 0.9, "parts": {"public": 0.8, "private": {"all": 0.7}}}
    assert flatten(scores) == {"map_at_3": 0.9, "parts.public": 0.8, "parts.private.all": 0.7}


def test_lists_are_values_and_empty_mappings_have_none():
    assert flatten({"area": [0.02, 0.4], "demo": None}) == {"area": [0.02, 0.4], "demo": None}
    assert flatten({"map_at_3": {}, "empty": []}) == {"empty": []}
