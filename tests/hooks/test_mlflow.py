"""Hooks with a recorded run in place of MLflow, and once with MLflow itself."""

import pickle
import socket
from types import SimpleNamespace

import pandas as pd
import pytest
from click import ClickException
from kedro.framework.cli.utils import KedroCliError
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro_datasets.json import JSONDataset
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.logging_utils import eprint

from fsat_kedro.errors import InputError
from fsat_kedro.hooks import mlflow
from fsat_kedro.hooks.mlflow import MlflowHooks, _fold_of
from fsat_kedro.tracking import TrackedRun, fingerprint

CLIPS = pd.DataFrame(
    [["a.wav", "Bark", True, "public", 1, "ok", 0, 9]],
    columns=["fname", "label", "verified", "usage", "fold", "status", "start", "end"],
)
HISTORY = pd.DataFrame({"epoch": [1], "loss": [2.0]})


class RecordedRun:
    """Takes the place of a `TrackedRun`, and records what is logged."""

    def __init__(self):
        self.calls = []
        self.fold_ids = {}
        self.tracking_uri = "sqlite:////mlflow.db"
        self.url = "http://server/runs/1"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, *args, *kwargs.values()))

    def require_server(self, hosts):
        return TrackedRun.require_server(self, hosts)

    def open_fold(self, fold):
        self.fold_ids[fold] = "id"

    def epoch_logger(self, fold, stage):
        return lambda epoch, logs: self.calls.append(("epoch", fold, stage, epoch, logs))


class TaggerStub(MemoryDataset):
    def local_folder(self):
        return "models"


def stub(path=None, **targets):
    """Return a dataset in memory with a path, and what of it goes to MLflow."""
    dataset = MemoryDataset(metadata={"mlflow": targets} if targets else None)
    dataset._filepath = path
    return dataset


@pytest.fixture
def catalog(tmp_path):
    datasets = {
        "train_clips": stub(fingerprint=True),
        "test_scores": stub("test.json", artifact="scores", metrics="test"),
        "cv_scores": stub("cv.json", metrics="cv", fold_metrics="cv"),
        "fold_test_scores": stub("folds.csv", fold_metrics="test"),
        "mel_history_3": stub("fold_3/mel.csv", artifact="history"),
        "submission": stub("s3://bucket/submission.csv", artifact="predictions"),
        "tagger": TaggerStub(metadata={"mlflow": {"model": "fsat_kedro"}}),
        "split_3": stub("split.pkl"),
        "clip_counts": JSONDataset(
            filepath=str(tmp_path / "counts.json"), metadata={"mlflow": {"metrics": "clips"}}
        ),
        "callbacks": MemoryDataset([]),
    }
    return DataCatalog(datasets)


@pytest.fixture
def context(tmp_path):
    """A project whose parameters and settings of MLflow the hooks read."""
    return SimpleNamespace(
        project_path=tmp_path,
        env="demo",
        config_loader={
            "mlflow": {
                "tracking_uri": "sqlite:///mlflow.db",
                "experiment": "fsat_kedro",
                "parameters": ["seed"],
            },
            "parameters": {
                "dataset": "fsdkaggle2018",
                "seed": 3,
                "data_dir": "data",
                "folds": {"source": "stratified", "n_folds": 10},
                "test_time_crops": {
                    "n_lengths": 6,
                    "crops_per_length": 5,
                    "subset": "thinned",
                    "batch_size": 64,
                },
            },
        },
    )


@pytest.fixture
def run(monkeypatch):
    recorded = RecordedRun()

    def start(**settings):
        recorded.settings = settings
        return recorded

    monkeypatch.setattr(mlflow, "TrackedRun", start)
    return recorded


@pytest.fixture
def hooks(run, context, catalog):
    hooks = MlflowHooks()
    hooks.after_context_created(context)
    hooks.before_pipeline_run({"pipeline_names": ["training"]}, catalog)
    return hooks


def node_of(inputs=None, outputs="out", *, name="train_mel", namespace="training.fold_3"):
    return node(lambda *_: None, inputs, outputs, name=name, namespace=namespace)


REPORTING = node_of(name="report", namespace="reporting")


def test_the_run_has_the_settings_and_parameters_of_the_project(hooks, run, context):
    assert run.settings.pop("name").startswith("demo 20")
    assert run.settings == {
        "tracking_uri": "sqlite:///mlflow.db",
        "experiment": "fsat_kedro",
        "project_path": context.project_path,
        "tags": {
            "env": "demo",
            "dataset": "fsdkaggle2018",
            "pipelines": "training",
            "mlflow.source.name": "kedro run",
        },
        # The predictions that the run really makes: 10 × 3, not 10 × 6 × 5.
        "parameters": {"seed": 3, "predictions_per_clip": 30},
    }


def test_a_database_that_cannot_be_written_to_is_one_message(context, catalog, monkeypatch):
    def fail(**_):
        raise MlflowException("database is locked")

    monkeypatch.setattr(mlflow, "TrackedRun", fail)
    hooks = MlflowHooks()
    hooks.after_context_created(context)
    with pytest.raises(ClickException, match=r"cannot write to sqlite:///mlflow\.db: database is"):
        hooks.before_pipeline_run({}, catalog)


def test_a_damaged_database_is_one_message_without_sql(context, catalog):
    database = context.project_path / "mlflow.db"
    database.write_bytes(b"SQLite format 3\0" + bytes(5000))
    hooks = MlflowHooks()
    hooks.after_context_created(context)
    with pytest.raises(ClickException) as error:
        hooks.before_pipeline_run({}, catalog)
    assert error.value.message.startswith("MLflow cannot read sqlite:///mlflow.db: ")
    assert "Move the damaged file away" in error.value.message
    assert "SELECT" not in error.value.message


SCORES = {"map_at_3": 0.9, "accuracy": 0.8, "per_fold": [{"fold": 3, "map_at_3": 0.7}]}
TABLE = pd.DataFrame({"fold": [3], "map_at_3": [0.7]})


@pytest.mark.parametrize(
    ("name", "data", "calls"),
    [
        (
            "test_scores",
            SCORES,
            [("log_metrics", SCORES, "test"), ("log_artifact", "test.json", "scores", None)],
        ),
        (
            "cv_scores",
            SCORES,
            [("log_metrics", SCORES, "cv"), ("log_fold_scores", SCORES["per_fold"], "cv")],
        ),
        ("fold_test_scores", TABLE, [("log_fold_scores", TABLE.to_dict("records"), "test")]),
        (
            "submission",
            None,
            [("log_artifact", "s3://bucket/submission.csv", "predictions", None)],
        ),
        ("tagger", None, [("log_model", "models", "fsat_kedro")]),
        ("train_clips", CLIPS, [("set_tag", "fingerprint.train", fingerprint(CLIPS))]),
        ("split_3", None, []),
    ],
)
def test_an_output_is_logged_as_its_catalog_entry_says(hooks, run, name, data, calls):
    hooks.after_dataset_saved(name, data, REPORTING)
    assert run.calls == calls


@pytest.mark.parametrize("verbose", [False, True])
def test_the_registered_model_is_announced_with_verbose_only(
    hooks, run, monkeypatch, capsys, verbose
):
    def register(*_):
        eprint("Successfully registered model")

    monkeypatch.setattr(KedroCliError, "VERBOSE_ERROR", verbose)
    monkeypatch.setattr(run, "log_model", register, raising=False)
    hooks.after_dataset_saved("tagger", None, REPORTING)
    assert ("Successfully registered model" in capsys.readouterr().err) == verbose
    eprint("later")
    assert capsys.readouterr().err == "later\n"


def test_the_history_of_a_stage_goes_to_its_fold_with_its_curves(hooks, run):
    hooks.after_dataset_saved("mel_history_3", HISTORY, node_of())
    assert run.calls == [
        ("log_artifact", "fold_3/mel.csv", "history", "fold_3"),
        ("log_learning_curves", "mel", HISTORY, "fold_3"),
    ]


def test_the_clips_of_a_split_are_tagged_once(hooks, run):
    for _ in range(2):
        hooks.after_dataset_loaded("train_clips", CLIPS)
    hooks.after_dataset_saved("train_clips", CLIPS, REPORTING)
    assert run.calls == [("set_tag", "fingerprint.train", fingerprint(CLIPS))]


def test_epochs_go_to_the_run_of_the_fold_that_trains(hooks, run):
    inputs = hooks.before_node_run(node_of(["split_3", "callbacks"]))
    (callback,) = inputs["callbacks"]
    callback.on_epoch_end(0, {"loss": 2.0})
    assert run.calls[-1] == ("epoch", "fold_3", "mel", 0, {"loss": 2.0})
    tags = [call for call in run.calls if call[0] == "set_tag"]
    assert [(key, fold) for _, key, _, fold in tags] == [("backend", None), ("backend", "fold_3")]


def test_the_stage_of_both_inputs_has_its_own_name(hooks, run):
    inputs = hooks.before_node_run(node_of("callbacks", name="train_mel_pca"))
    inputs["callbacks"][0].on_epoch_end(4, {})
    assert run.calls[-1] == ("epoch", "fold_3", "mel_pca", 4, {})


@pytest.mark.parametrize(
    "other",
    [
        node_of("split_3", name="predict_out_of_fold"),
        node_of("callbacks", name="train_mel", namespace="elsewhere"),
    ],
)
def test_other_nodes_get_no_callback(hooks, other):
    assert hooks.before_node_run(other) is None


def test_scores_that_existed_before_are_logged_at_the_end(hooks, run, catalog):
    pipeline = Pipeline([node_of(outputs=["clip_counts", "test_scores", "cv_scores", "split_3"])])
    catalog["clip_counts"].save({"train": 7})
    catalog["test_scores"].save(SCORES)
    hooks.after_dataset_saved("test_scores", SCORES, REPORTING)
    run.calls.clear()
    hooks.after_pipeline_run(pipeline, catalog)
    # Those of the cross-validation do not exist.
    assert run.calls == [("log_metrics", {"train": 7}, "clips"), ("end", "FINISHED")]


def test_the_url_is_logged_after_a_training(hooks, run, catalog, caplog):
    caplog.set_level("INFO", "fsat_kedro")
    run.fold_ids["fold_3"] = "id"
    hooks.after_pipeline_run(Pipeline([]), catalog)
    assert caplog.messages == ["in MLflow: http://server/runs/1"]


def test_a_run_that_fails_ends_as_failed_and_ends_once(hooks, run, catalog):
    hooks.on_pipeline_error()
    hooks.after_dataset_saved("test_scores", SCORES, REPORTING)
    hooks.after_pipeline_run(Pipeline([]), catalog)
    assert run.calls == [("end", "FAILED")]


def test_hooks_without_a_run_do_nothing(catalog):
    hooks = MlflowHooks()
    hooks.after_dataset_loaded("train_clips", CLIPS)
    hooks.after_dataset_saved("test_scores", SCORES, REPORTING)
    hooks.on_pipeline_error()
    assert hooks.before_node_run(node_of("callbacks")) is None
    pickle.dumps(hooks.for_worker(node_of("callbacks"), set()))


def test_a_worker_on_another_host_needs_a_server(hooks, run):
    with pytest.raises(InputError, match="elsewhere cannot write to: start `mlflow server`"):
        hooks.for_worker(node_of("callbacks"), {socket.gethostname(), "elsewhere"})
    assert run.fold_ids == {}


def test_hooks_of_a_worker_log_to_the_same_runs_by_the_same_entries(context, tmp_path):
    hooks = MlflowHooks()
    hooks.after_context_created(context)
    counts = {"filepath": str(tmp_path / "counts.json"), "metadata": {"mlflow": {"metrics": "n"}}}
    catalog = DataCatalog(
        {
            "train_clips": MemoryDataset(CLIPS, metadata={"mlflow": {"fingerprint": True}}),
            "clip_counts": JSONDataset(**counts),
            "callbacks": MemoryDataset([]),
            "unrelated": MemoryDataset(lambda: "cannot be pickled"),
        }
    )
    hooks.before_pipeline_run({}, catalog)
    trained = node_of(["train_clips", "callbacks"], "clip_counts")
    of_worker = pickle.loads(pickle.dumps(hooks.for_worker(trained, {socket.gethostname()})))
    of_worker.after_dataset_loaded("train_clips", CLIPS)
    inputs = of_worker.before_node_run(trained)
    inputs["callbacks"][0].on_epoch_end(0, {"loss": 2.0})
    of_worker.after_dataset_saved("clip_counts", {"train": 7}, trained)
    catalog["clip_counts"].save({"train": 8})
    # The worker has logged both, so they are not logged again.
    hooks.after_dataset_loaded("train_clips", CLIPS[:0])
    hooks.after_pipeline_run(Pipeline([trained]), catalog)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fsat_kedro").experiment_id
    fold, parent = sorted(
        client.search_runs([experiment]), key=lambda run: run.info.run_name, reverse=True
    )
    assert fold.info.run_name == "fold_3"
    assert fold.data.metrics == {"mel/loss": 2.0}
    assert parent.data.metrics == {"n/train": 7}
    assert parent.data.tags["fingerprint.train"] == fingerprint(CLIPS)
    assert {fold.info.status, parent.info.status} == {"FINISHED"}


@pytest.mark.parametrize(
    ("namespace", "fold"),
    [
        ("training.fold_3", "fold_3"),
        ("training.fold_10", "fold_10"),
        ("inference.fold_3", None),
        ("training", None),
        ("training.scores", None),
        ("", None),
        (None, None),
    ],
)
def test_the_fold_is_that_of_a_training_namespace(namespace, fold):
    assert _fold_of(namespace) == fold
