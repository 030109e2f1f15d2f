"""What happens around a run: parameters are checked, MLflow is told, errors are made readable."""

from __future__ import annotations

import atexit
import logging
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.hooks import hook_impl
from pydantic import ValidationError

from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Parameters

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node
    from mlflow import MlflowClient


logger = logging.getLogger(__name__)


class ParameterHooks:
    """Checks all parameters before any node runs, and has the pipelines built for them."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Fail on an unknown key or a wrong value; make the folders absolute."""
        from fsat_kedro.pipeline_registry import note_parameters

        try:
            parameters = dict(context.config_loader["parameters"])
        except MissingConfigException as error:
            conf_source = Path(context.config_loader.conf_source)
            known = sorted(path.name for path in conf_source.iterdir() if path.is_dir())
            raise ClickException(
                f"unknown environment '{context.env}': {conf_source} has {', '.join(known)}"
            ) from error
        try:
            Parameters.model_validate(parameters)
        except ValidationError as error:
            raise ClickException(_readable(error)) from error
        for folder in ("raw_dir", "data_dir"):
            if parameters[folder].startswith("~"):
                raise ClickException(f"{folder} is {parameters[folder]}: write ~ out")
            parameters[folder] = str(context.project_path / parameters[folder])
        context.config_loader["parameters"] = parameters
        note_parameters(parameters)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Make the folder that everything is written to."""
        data_dir = Path(catalog.load("params:data_dir"))
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClickException(f"data_dir {data_dir} cannot be made: {error}") from error


class ReadableErrorHooks:
    """Shows what a user can mend as one message; `kedro run --verbose` adds the traceback."""

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        """Turn an `InputError` of a node into a message of the command."""
        if isinstance(error, InputError):
            raise ClickException(f"{node.name}: {error}") from error


class MlflowHooks:
    """A parent run a `kedro run`, and below it a child run a fold that trains.

    Metrics are logged by the run's id while the fold trains, so that several folds may train at
    once; the ids of children are found again by their tags.
    """

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._parent_id: str | None = None
        self._child_ids: dict[str, str] = {}

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
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._catalog = catalog
        self._client = MlflowClient(self._tracking_uri())
        name = f"{self._env or self._parameters['dataset']} {time.strftime('%Y-%m-%d %H:%M')}"
        tags = {
            "env": self._env or "base",
            "dataset": self._parameters["dataset"],
            "pipelines": ", ".join(run_params.get("pipeline_names") or ["__default__"]),
        }
        run = self._client.create_run(self._experiment_id(), tags=tags, run_name=name)
        self._parent_id = run.info.run_id
        parameters = [
            Param(key, str(value)) for key, value in sorted(_flat(self._parameters).items())
        ]
        self._client.log_batch(self._parent_id, params=parameters)
        atexit.register(self._close, "KILLED")

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Have a stage that is about to train report its epochs to its fold's run."""
        fold = _fold_of(node.namespace)
        if fold is None or not any("_history" in output for output in node.outputs):
            return
        from fsat_kedro.training import report_epochs_to

        stage = node.name.rpartition("train_")[2]
        run_id = self._child_id(fold)
        report_epochs_to(partial(self._log_metrics, run_id, f"{stage}/"))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Log scores as metrics, and main outputs as artifacts."""
        if self._client is None:
            return
        scores = self._settings["metrics"].get(dataset_name)
        if scores is not None:
            numbers = {key: x for key, x in _flat(data).items() if isinstance(x, float)}
            self._log_metrics(self._parent_id, f"{scores}/", numbers)
        fold = _fold_of(node.namespace)
        run_id = self._parent_id if fold is None else self._child_id(fold)
        folder = self._settings["artifacts"].get(re.sub(r"_\d+$", "", dataset_name))
        if folder is not None:
            self._client.log_artifact(run_id, str(self._catalog[dataset_name]._filepath), folder)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Close all runs as finished."""
        self._close("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close all runs as failed."""
        self._close("FAILED")

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
                tags={"mlflow.parentRunId": self._parent_id, "fold": fold},
                run_name=fold,
            )
            self._child_ids[fold] = run.info.run_id
        return self._child_ids[fold]

    def _log_metrics(
        self, run_id: str, prefix: str, metrics: dict[str, float], step: int = 0
    ) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        entities = [Metric(prefix + key, float(x), now, step) for key, x in metrics.items()]
        try:
            self._client.log_batch(run_id, metrics=entities)
        except MlflowException as error:
            # The history keeps the same numbers; an hour of training is worth more than a point.
            logger.warning("MLflow did not take the metrics of step %d: %s", step, error)

    def _close(self, status: str) -> None:
        """End all open runs; does nothing the second time."""
        open_ids = [*self._child_ids.values(), *([self._parent_id] if self._parent_id else [])]
        self._child_ids, self._parent_id = {}, None
        for run_id in open_ids:
            self._client.set_terminated(run_id, status)


def _readable(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown parameter '{name}'")
        elif problem["type"] == "missing":
            lines.append(f"parameter '{name}' is not set")
        else:
            lines.append(f"parameter '{name}' is {problem['input']!r}: {problem['msg']}")
    return "; ".join(lines) + ". All parameters are in conf/base/parameters*.yml"


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
