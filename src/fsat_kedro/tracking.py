"""MLflow runs of a training: a parent run, and below it a child run for each fold."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psutil
from fsspec.core import url_to_fs

from fsat_kedro.errors import InputError
from fsat_kedro.files import is_url

# Every kedro command imports this module, and MLflow takes seconds to import.
if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_COMPARED_SCORES = ("map_at_3", "accuracy")
_UI = "workflowType=machine_learning"  # Without it, the MLflow UI shows traces of chats.


@contextmanager
def _warn_on_failure() -> Iterator[None]:
    """Turn a failure of MLflow into a warning: the training is worth more than its log."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        logger.warning("MLflow logging failed; the outputs on disk are complete: %s", error)


class TrackedRun:
    """A parent run in MLflow, and a child run for each fold that logs something.

    Everything is logged by run id, so several folds may log at once. A pickled copy logs to the
    same runs from another process. Methods that log take the name of a fold, or None for the
    parent run; where MLflow fails they log a warning.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        experiment: str,
        project_path: Path,
        name: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, Any],
    ) -> None:
        """Open a parent run, and end the runs of processes that were killed.

        An SQLite file in `tracking_uri` is relative to `project_path`, whose commit becomes a tag.
        The experiment is created if it does not exist. Dots join the keys of nested parameters.

        Raises:
            MlflowException: MLflow cannot write there.
        """
        from mlflow.entities import Param

        artifacts = None
        if tracking_uri.startswith("sqlite:///"):
            tracking_uri = f"sqlite:///{project_path / tracking_uri.removeprefix('sqlite:///')}"
            artifacts = (project_path / "mlruns").as_uri()
        self.tracking_uri = tracking_uri
        self.fold_ids: dict[str, str] = {}
        known = self._client.get_experiment_by_name(experiment)
        create = self._client.create_experiment
        self._experiment_id = known.experiment_id if known else create(experiment, artifacts)
        self._runs_page = f"#/experiments/{self._experiment_id}/runs"
        self._end_abandoned_runs()
        tags = {**tags, "mlflow.source.git.commit": _commit(project_path), "process": _process()}
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        self._parent_id = run.info.run_id
        params = [Param(key, str(value)) for key, value in sorted(flatten(parameters).items())]
        self._client.log_batch(self._parent_id, params=params)

    def __getstate__(self) -> dict[str, Any]:
        return {key: x for key, x in self.__dict__.items() if key != "_client"}

    @property
    def url(self) -> str:
        """The url of the parent run in the MLflow UI."""
        is_server = self.tracking_uri.startswith("http")
        server = (
            self.tracking_uri if is_server else "start `mlflow ui`, then open http://127.0.0.1:5000"
        )
        return f"{server}/{self._runs_page}/{self._parent_id}?{_UI}"

    def require_server(self, hosts: set[str]) -> None:
        """Raise an `InputError` if processes on these hosts cannot log, to a file on this one."""
        others = sorted(hosts - {socket.gethostname()})
        if others and self.tracking_uri.startswith("sqlite"):
            raise InputError(
                f"MLflow keeps its runs in a file, {self.tracking_uri}, which processes on "
                f"{', '.join(others)} cannot write to: start `mlflow server` and set its url as "
                "tracking_uri in conf/base/mlflow.yml"
            )

    @_warn_on_failure()
    def open_fold(self, fold: str) -> None:
        """Create the run of a fold, if it does not exist."""
        self._run_id(fold)

    @_warn_on_failure()
    def set_tag(self, key: str, value: str, fold: str | None = None) -> None:
        """Tag a run."""
        self._client.set_tag(self._run_id(fold), key, value)

    @_warn_on_failure()
    def log_metrics(
        self, metrics: Mapping[str, Any], *, prefix: str, fold: str | None = None, step: int = 0
    ) -> None:
        """Log all numbers in nested metrics as `<prefix>/<keys joined by dots>`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = {key: x for key, x in flatten(metrics).items() if isinstance(x, int | float)}
        entities = [Metric(f"{prefix}/{key}", float(x), now, step) for key, x in numbers.items()]
        self._client.log_batch(self._run_id(fold), metrics=entities)

    def log_fold_scores(self, rows: Sequence[Mapping[str, Any]], *, prefix: str) -> None:
        """Log MAP@3 and accuracy of rows to the runs of folds; `fold` is the number in a row."""
        for row in rows:
            fold = f"fold_{row['fold']}"
            if fold in self.fold_ids:
                scores = {key: row[key] for key in _COMPARED_SCORES}
                self.log_metrics(scores, prefix=prefix, fold=fold)

    def epoch_logger(self, fold: str, stage: str) -> Callable[[int, Mapping[str, float]], None]:
        """Return a function that logs the metrics of an epoch (from 0 on) at step epoch + 1.

        It skips epochs that the run has already: another process may have begun this stage.
        """
        n_logged = 0
        with _warn_on_failure():
            logged = self._client.get_metric_history(self._run_id(fold), f"{stage}/loss")
            n_logged = max((metric.step for metric in logged), default=0)

        def log_epoch(epoch: int, logs: Mapping[str, float]) -> None:
            if epoch >= n_logged:
                self.log_metrics(logs, prefix=stage, fold=fold, step=epoch + 1)

        return log_epoch

    @_warn_on_failure()
    def log_artifact(self, path: str, folder: str, fold: str | None = None) -> None:
        """Log a local file, or the object at a url, to a folder of a run."""
        with TemporaryDirectory() as temporary:
            if is_url(path):
                files, name = url_to_fs(path, use_listings_cache=False)
                path = str(Path(temporary, Path(name).name))
                files.get_file(name, path)
            self._client.log_artifact(self._run_id(fold), path, folder)

    @_warn_on_failure()
    def log_learning_curves(self, stage: str, history: pd.DataFrame, fold: str | None) -> None:
        """Plot the history of a stage, so that its curves are visible before all folds end."""
        from fsat_kedro.evaluation.plots import plot_learning_curves

        figure = plot_learning_curves({stage: [history]})
        self._client.log_figure(self._run_id(fold), figure, f"reports/{stage}_learning_curves.png")

    @_warn_on_failure()
    def log_model(self, ensemble: Path, name: str) -> None:
        """Log the ensemble in a local folder, and register it as the next version of a model."""
        import mlflow

        from fsat_kedro.inference.mlflow_model import log_model

        mlflow.set_tracking_uri(self.tracking_uri)
        log_model(ensemble, run_id=self._parent_id, name=name)

    def end(self, status: str) -> None:
        """End all runs with a status: FINISHED, FAILED or KILLED."""
        for run_id in (*self.fold_ids.values(), self._parent_id):
            with _warn_on_failure():
                self._client.set_terminated(run_id, status)

    @cached_property
    def _client(self) -> MlflowClient:
        """The connection of this process."""
        from mlflow import MlflowClient

        return MlflowClient(self.tracking_uri)

    def _end_abandoned_runs(self) -> None:
        """End the runs of processes of this machine that were killed before they could end them."""
        for run in self._client.search_runs([self._experiment_id], "status = 'RUNNING'"):
            pid, _, host = run.data.tags.get("process", "").partition("@")
            if host == socket.gethostname() and not psutil.pid_exists(int(pid)):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _run_id(self, fold: str | None) -> str:
        """Return the id of a fold's run, which is created if needed, or of the parent run."""
        if fold is None:
            return self._parent_id
        if fold not in self.fold_ids:
            tags = {"mlflow.parentRunId": self._parent_id, "fold": fold, "process": _process()}
            run = self._client.create_run(self._experiment_id, tags=tags, run_name=fold)
            if not self.fold_ids:
                link = f"[Its folds compared]({self._runs_page}?{_comparison(self._parent_id)})"
                self._client.set_tag(self._parent_id, "mlflow.note.content", link)
            self.fold_ids[fold] = run.info.run_id
        return self.fold_ids[fold]


def fingerprint(clips: pd.DataFrame) -> str:
    """Return a digest that is the same for the same clips in any order.

    It depends on names, labels, what the clips are for, and the intervals left after trimming.
    """
    columns = ["fname", "label", "verified", "usage", "fold", "status", "start", "end"]
    text = clips[columns].sort_values("fname").to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(nested: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one, with keys joined by dots."""
    if not isinstance(nested, Mapping):
        return {prefix.rstrip("."): nested}
    flat = {}
    for key, value in nested.items():
        flat.update(flatten(value, f"{prefix}{key}."))
    return flat


def _comparison(parent_id: str) -> str:
    """Return the MLflow UI's query for the folds of a run side by side, the best first."""
    query = {
        "searchFilter": f"tags.mlflow.parentRunId = '{parent_id}'",
        # Sorted by time, the UI would hide folds below their parent run.
        "orderByKey": "metrics.`mel_pca/val_map_at_3`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    return f"{_UI}&{urlencode(query, quote_via=quote)}"


def _process() -> str:
    return f"{os.getpid()}@{socket.gethostname()}"


def _commit(project_path: Path) -> str:
    """Return the commit that is checked out, with a `+` for changed files; "" if unknown."""
    # Without tags, git describes a commit by its hash.
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.check_output(
            describe, cwd=project_path, stderr=subprocess.DEVNULL, text=True
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
