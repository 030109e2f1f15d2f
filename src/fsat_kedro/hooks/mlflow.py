"""A parent run in MLflow for each run, and a child run for each fold."""

from __future__ import annotations

import atexit
import copy
import hashlib
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from click import ClickException
from kedro.framework.hooks import hook_impl

from fsat_kedro.datasets.stored_dataset import StoredDataset
from fsat_kedro.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node
    from mlflow import MlflowClient


logger = logging.getLogger(__name__)


_COMPARED = ("map_at_3", "accuracy")
"""Scores by which the folds of a run are compared in MLflow."""


_UI = "workflowType=machine_learning"
"""Has the MLflow UI show runs and their charts, where it would ask for traces of chats."""


class MlflowHooks:
    """A parent run a `kedro run`, and below it a child run a fold that trains.

    Metrics are logged by the run's id while the fold trains, so that several folds may train at
    once, in this process or in others: what `for_worker` gives logs to the same runs.
    """

    def __init__(self) -> None:
        self._connection: MlflowClient | None = None
        self._catalog: CatalogProtocol | None = None
        self._parent_id: str | None = None
        self._child_ids: dict[str, str] = {}
        self._logged: set[str] = set()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note where to log to."""
        self._project_path = context.project_path
        self._env = context.env
        self._settings = context.config_loader["mlflow"]
        self._parameters = context.config_loader["parameters"]

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Open the parent run."""
        from mlflow.exceptions import MlflowException

        self._catalog = catalog
        try:
            self._open_parent(run_params)
        except MlflowException as error:
            raise ClickException(
                f"MLflow cannot write to {self._tracking_uri()}: {error}. Make room there, or set "
                "another tracking_uri in conf/base/mlflow.yml"
            ) from error
        atexit.register(self._close, "KILLED")

    def _open_parent(self, run_params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self._close_abandoned()
        name = f"{self._env or self._parameters['dataset']} {time.strftime('%Y-%m-%d %H:%M')}"
        tags = {
            "env": self._env or "base",
            "dataset": self._parameters["dataset"],
            "pipelines": ", ".join(run_params.get("pipeline_names") or ["__default__"]),
            "process": _process(),
            # The names that the MLflow UI knows.
            "mlflow.source.name": "kedro run",
            "mlflow.source.git.commit": _commit(self._project_path),
        }
        run = self._client.create_run(self._experiment_id(), tags=tags, run_name=name)
        self._parent_id = run.info.run_id
        told = {name: self._parameters[name] for name in self._settings["parameters"]}
        parameters = [Param(key, str(value)) for key, value in sorted(_flat(told).items())]
        self._client.log_batch(self._parent_id, params=parameters)

    def for_worker(self, node: Node, hosts: set[str]) -> MlflowHooks:
        """Hooks that log to the same runs from another process, which opens and ends none.

        Raises:
            InputError: the runs are kept in a file, and there are workers on other machines.
        """
        others = sorted(hosts - {socket.gethostname()})
        if others and self._tracking_uri().startswith("sqlite"):
            raise InputError(
                f"MLflow's runs are kept in a file, {self._tracking_uri()}, which processes on "
                f"{', '.join(others)} cannot write to: start `mlflow server` and set its address "
                "as tracking_uri in conf/base/mlflow.yml"
            )
        fold = _fold_of(node.namespace)
        if fold is not None:
            with _tolerating_mlflow():
                self._child_id(fold)
        hooks = copy.copy(self)
        hooks._logged = set(self._logged)
        # Logged there, and so neither by the next node nor at the end of the run.
        self._logged |= {name for name in node.outputs if "metrics" in self._wanted(name)}
        self._logged |= set(map(_fingerprint_tag, (*node.inputs, *node.outputs)))
        return hooks

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "_catalog": None}

    @property
    def _client(self) -> MlflowClient:
        """Each process has a connection of its own, from when it needs one."""
        if self._connection is None:
            from mlflow import MlflowClient

            self._connection = MlflowClient(self._tracking_uri())
        return self._connection

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol) -> dict[str, Any] | None:
        """Have a stage that is about to train report its epochs to its fold's run."""
        self._catalog = catalog
        fold = _fold_of(node.namespace)
        if fold is None or "callbacks" not in node.inputs:
            return None
        import keras

        stage = node.name.rpartition("train_")[2]
        with _tolerating_mlflow():
            child_id = self._child_id(fold)
            for run_id in (self._parent_id, child_id):
                self._client.set_tag(run_id, "backend", keras.backend.backend())
            logged = self._client.get_metric_history(child_id, f"{stage}/loss")
            first = max((metric.step for metric in logged), default=0) + 1
            log = partial(self._log_epoch, child_id, f"{stage}/", first)
            return {"callbacks": [keras.callbacks.LambdaCallback(on_epoch_end=log)]}
        return None

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Tag the run with what its clips are."""
        self._tag_clips(dataset_name, data)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Log scores as metrics, and main outputs as artifacts."""
        if self._parent_id is None:
            return
        self._tag_clips(dataset_name, data)
        wanted = self._wanted(dataset_name)
        if "metrics" in wanted:
            self._log_scores(dataset_name, data)
        if "fold_metrics" in wanted:
            self._log_fold_scores(dataset_name, data)
        if "model" in wanted:
            dataset = self._catalog[dataset_name]
            # In a store, this machine may not have made all of it.
            stored = isinstance(dataset, StoredDataset)
            ensemble = Path(dataset.fetch() if stored else dataset._filepath).parent
            self._log_model(ensemble, wanted["model"])
        if "artifact" in wanted:
            folder = wanted["artifact"]
            fold = _fold_of(node.namespace)
            path = str(self._catalog[dataset_name]._filepath)
            with _tolerating_mlflow():
                run_id = self._parent_id if fold is None else self._child_id(fold)
                self._client.log_artifact(run_id, path, folder)
                stage, history, _ = dataset_name.partition("_history_")
                if history:
                    self._draw_curves(run_id, stage, data)

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Log the scores that were there already, close all runs as finished, tell their place."""
        for name in pipeline.all_outputs() - self._logged:
            if "metrics" in self._wanted(name) and catalog[name].exists():
                self._log_scores(name, catalog[name].load())
        if self._child_ids:
            uri = self._tracking_uri()
            server = uri if uri.startswith("http") else "mlflow ui, then http://127.0.0.1:5000"
            logger.info("in MLflow: %s/%s?%s", server, self._page(self._parent_id), _UI)
        self._close("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close all runs as failed."""
        self._close("FAILED")

    def _wanted(self, dataset_name: str) -> dict[str, Any]:
        """What the catalog says is to be logged of a dataset."""
        if self._catalog is None or dataset_name not in self._catalog:
            return {}
        metadata = getattr(self._catalog[dataset_name], "metadata", None) or {}
        return metadata.get("mlflow", {})

    def _tracking_uri(self) -> str:
        """The address in the settings; SQLite in a relative file is meant from the project."""
        scheme, _, path = self._settings["tracking_uri"].partition(":///")
        if scheme == "sqlite":
            return f"sqlite:///{self._project_path / path}"
        return self._settings["tracking_uri"]

    def _experiment_id(self) -> str:
        name = self._settings["experiment"]
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        artifacts = None
        if self._settings["tracking_uri"].startswith("sqlite"):
            artifacts = (self._project_path / "mlruns").as_uri()
        return self._client.create_experiment(name, artifact_location=artifacts)

    def _child_id(self, fold: str) -> str:
        if fold not in self._child_ids:
            parent = self._client.get_run(self._parent_id)
            run = self._client.create_run(
                parent.info.experiment_id,
                tags={
                    "mlflow.parentRunId": self._parent_id,
                    "fold": fold,
                    "process": _process(),
                },
                run_name=fold,
            )
            if not self._child_ids:
                link = f"[Its folds compared]({self._page()}?{_comparison(self._parent_id)})"
                self._client.set_tag(self._parent_id, "mlflow.note.content", link)
            self._child_ids[fold] = run.info.run_id
        return self._child_ids[fold]

    def _page(self, *run_id: str) -> str:
        """Where the MLflow UI shows a run, or all, below the server's address."""
        return "/".join(["#/experiments", self._experiment_id(), "runs", *run_id])

    def _close_abandoned(self) -> None:
        """End the runs of processes that were killed before they could."""
        running = self._client.search_runs([self._experiment_id()], "status = 'RUNNING'")
        for run in running:
            if _has_ended(run.data.tags.get("process", "")):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _tag_clips(self, dataset_name: str, data: Any) -> None:
        """Tag the run with a fingerprint of a split's clips, once."""
        tag = _fingerprint_tag(dataset_name)
        if "fingerprint" not in self._wanted(dataset_name) or tag in self._logged:
            return
        with _tolerating_mlflow():
            self._client.set_tag(self._parent_id, tag, _fingerprint(data))
            self._logged.add(tag)

    def _log_scores(self, dataset_name: str, data: Any) -> None:
        numbers = {key: x for key, x in _flat(data).items() if isinstance(x, int | float)}
        self._log_metrics(self._parent_id, f"{self._wanted(dataset_name)['metrics']}/", numbers)
        self._logged.add(dataset_name)

    def _log_fold_scores(self, dataset_name: str, data: dict[str, Any] | pd.DataFrame) -> None:
        """Log the scores of the folds that this run trained to their runs."""
        rows = data["per_fold"] if isinstance(data, dict) else data.to_dict("records")
        prefix = f"{self._wanted(dataset_name)['fold_metrics']}/"
        for row in rows:
            child_id = self._child_ids.get(f"fold_{row['fold']}")
            if child_id is not None:
                self._log_metrics(child_id, prefix, {key: row[key] for key in _COMPARED})

    def _draw_curves(self, run_id: str, stage: str, history: pd.DataFrame) -> None:
        """The learning curves of a stage that has ended, long before those of all folds."""
        from fsat_kedro.evaluation.plots import plot_learning_curves

        figure = plot_learning_curves({stage: [history]})
        self._client.log_figure(run_id, figure, f"reports/{stage}_learning_curves.png")

    def _log_model(self, ensemble: Path, name: str) -> None:
        import mlflow

        from fsat_kedro.inference.serving import log_model

        mlflow.set_tracking_uri(self._tracking_uri())
        with _tolerating_mlflow():
            log_model(ensemble, run_id=self._parent_id, name=name)

    def _log_epoch(
        self, run_id: str, prefix: str, first: int, epoch: int, logs: dict[str, float]
    ) -> None:
        """Log an epoch, unless a process that was killed in this stage has already done so."""
        if epoch + 1 >= first:
            self._log_metrics(run_id, prefix, logs, epoch + 1)

    def _log_metrics(
        self, run_id: str, prefix: str, metrics: dict[str, float], step: int = 0
    ) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(prefix + key, float(x), now, step) for key, x in metrics.items()]
        with _tolerating_mlflow():
            self._client.log_batch(run_id, metrics=entities)

    def _close(self, status: str) -> None:
        """End all open runs; does nothing the second time."""
        open_ids = [*self._child_ids.values(), *([self._parent_id] if self._parent_id else [])]
        self._child_ids, self._parent_id = {}, None
        for run_id in open_ids:
            with _tolerating_mlflow():
                self._client.set_terminated(run_id, status)


@contextmanager
def _tolerating_mlflow() -> Iterator[None]:
    """Go on where MLflow fails: the outputs hold the same, and a day's work is worth more."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        logger.warning("MLflow did not take what it was told: %s", error)


def _comparison(parent_id: str) -> str:
    """What the MLflow UI is asked for to show the folds of a run side by side, the best on top."""
    asked = {
        "searchFilter": f"tags.mlflow.parentRunId = '{parent_id}'",
        # Sorted by time, folds would be hidden under their run.
        "orderByKey": "metrics.`mel_pca/val_map_at_3`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    return f"{_UI}&{urlencode(asked, quote_via=quote)}"


def _process() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


def _commit(project_path: Path) -> str:
    """The commit that is checked out, with a `+` if files were changed since; "" if unknown."""
    git = ["git", "-C", str(project_path)]
    try:
        commit, changes = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.strip() + ("+" if changes else "")


def _fingerprint_tag(dataset_name: str) -> str:
    return f"fingerprint.{dataset_name.removesuffix('_clips')}"


def _fingerprint(clips: pd.DataFrame) -> str:
    """The same for the same clips: names, labels, what they are for, trimmed intervals."""
    columns = ["fname", "label", "verified", "usage", "fold", "status", "start", "end"]
    text = clips[columns].sort_values("fname").to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _has_ended(process: str) -> bool:
    """Whether a process of this machine is no more; False for one of another machine."""
    pid, _, host = process.partition("@")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _flat(nested: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, its keys joined by dots."""
    if not isinstance(nested, dict):
        return {prefix.rstrip("."): nested}
    flat = {}
    for key, value in nested.items():
        flat.update(_flat(value, f"{prefix}{key}."))
    return flat


def _fold_of(namespace: str | None) -> str | None:
    """`fold_3` from `training.fold_3`."""
    pipeline, _, fold = (namespace or "").partition(".")
    return fold if pipeline == "training" and fold.startswith("fold_") else None
