"""What a run of Kedro logs to MLflow."""

from __future__ import annotations

import atexit
import copy
import logging
import time
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.framework.cli.utils import KedroCliError
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from fsat_kedro.datasets.filepath import filepath_of
from fsat_kedro.hooks.progress import import_keras_quietly
from fsat_kedro.modelling.crop_lengths import predictions_per_clip
from fsat_kedro.parameters import TestTimeCrops
from fsat_kedro.tracking import TrackedRun, fingerprint

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)


class MlflowHooks:
    """Log each `kedro run` to MLflow: outputs as the catalog says, and epochs while a fold trains.

    See the head of `conf/base/catalog.yml` for the metadata of a dataset.
    """

    _catalog: CatalogProtocol

    def __init__(self) -> None:
        self._run: TrackedRun | None = None
        self._logged: set[str] = set()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read the settings."""
        self._project_path = context.project_path
        self._env = context.env
        self._settings = context.config_loader["mlflow"]
        self._parameters = context.config_loader["parameters"]

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Open the parent run."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self._catalog, self._logged = catalog, set()
        dataset = self._parameters["dataset"]
        try:
            self._run = TrackedRun(
                tracking_uri=self._settings["tracking_uri"],
                experiment=self._settings["experiment"],
                project_path=self._project_path,
                name=f"{self._env or dataset} {time.strftime('%Y-%m-%d %H:%M')}",
                tags={
                    "env": self._env or "base",
                    "dataset": dataset,
                    "pipelines": ", ".join(run_params.get("pipeline_names") or ["__default__"]),
                    "mlflow.source.name": "kedro run",
                },
                parameters={
                    **{name: self._parameters[name] for name in self._settings["parameters"]},
                    "predictions_per_clip": self._predictions_per_clip(),
                },
            )
        except (MlflowException, OSError) as error:
            raise ClickException(
                f"MLflow cannot write to {self._settings['tracking_uri']}: {error}. Free some "
                "space there, or set another tracking_uri in conf/base/mlflow.yml"
            ) from error
        except SQLAlchemyError as error:
            problem = str(error).partition("\n")[0]  # What follows is SQL.
            raise ClickException(
                f"MLflow cannot read {self._settings['tracking_uri']}: {problem}. Move the damaged "
                "file away, and this command makes a new one: the outputs of earlier runs do not "
                "need it. Or set another tracking_uri in conf/base/mlflow.yml"
            ) from error
        atexit.register(self._end, "KILLED")

    def for_worker(self, node: Node, hosts: set[str]) -> MlflowHooks:
        """Return hooks that log a node to the same runs from another process.

        Raises:
            InputError: MLflow keeps the runs in a local file, and a host is another machine.
        """
        hooks = copy.copy(self)
        if self._run is None:
            return hooks
        self._run.require_server(hosts)
        fold = _fold_of(node.namespace)
        if fold is not None:
            self._run.open_fold(fold)
        names = {*node.inputs, *node.outputs}
        hooks._catalog = DataCatalog({name: self._catalog[name] for name in names})
        hooks._logged = set(self._logged)
        # The worker logs them, so no later node does, nor the end of the run.
        self._logged.update(node.outputs)
        self._logged.update(name for name in node.inputs if "fingerprint" in self._targets(name))
        return hooks

    @hook_impl
    def before_node_run(self, node: Node) -> dict[str, Any] | None:
        """Return a callback that logs the epochs of a stage to the run of its fold."""
        fold = _fold_of(node.namespace)
        if self._run is None or fold is None or "callbacks" not in node.inputs:
            return None
        import keras

        for name in (None, fold):
            self._run.set_tag("backend", keras.backend.backend(), name)
        log_epoch = self._run.epoch_logger(fold, stage=node.name.rpartition("train_")[2])
        return {"callbacks": [keras.callbacks.LambdaCallback(on_epoch_end=log_epoch)]}

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Tag the run with the fingerprint of a split's clips, once."""
        if self._run is None or dataset_name in self._logged:
            return
        if "fingerprint" in self._targets(dataset_name):
            split = dataset_name.removesuffix("_clips")
            self._run.set_tag(f"fingerprint.{split}", fingerprint(data))
            self._logged.add(dataset_name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Log scores as metrics, files as artifacts, and the ensemble as a model."""
        if self._run is None:
            return
        self.after_dataset_loaded(dataset_name, data)
        self._logged.add(dataset_name)
        dataset, targets = self._catalog[dataset_name], self._targets(dataset_name)
        if "metrics" in targets:
            self._run.log_metrics(data, prefix=targets["metrics"])
        if "fold_metrics" in targets:
            rows = data["per_fold"] if isinstance(data, dict) else data.to_dict("records")
            self._run.log_fold_scores(rows, prefix=targets["fold_metrics"])
        if "model" in targets:
            with _without_messages():
                self._run.log_model(dataset.local_folder(), targets["model"])
        if "artifact" in targets:
            fold = _fold_of(node.namespace)
            self._run.log_artifact(str(filepath_of(dataset)), targets["artifact"], fold)
            stage, is_history, _ = dataset_name.partition("_history_")
            if is_history:
                self._run.log_learning_curves(stage, data, fold)

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Log the scores that existed before, end all runs as finished, and log their url."""
        if self._run is None:
            return
        for name in pipeline.all_outputs() - self._logged:
            targets = self._targets(name)
            if "metrics" in targets and catalog[name].exists():
                self._run.log_metrics(catalog[name].load(), prefix=targets["metrics"])
        if self._run.fold_ids:
            logger.info("in MLflow: %s", self._run.url)
        self._end("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """End all runs as failed."""
        self._end("FAILED")

    def _predictions_per_clip(self) -> int:
        """Return the number that the settings of test-time crops amount to."""
        crops = TestTimeCrops.model_validate(self._parameters["test_time_crops"])
        return predictions_per_clip(crops, n_folds=self._parameters["folds"]["n_folds"])

    def _targets(self, dataset_name: str) -> dict[str, Any]:
        """Return what the catalog says is to be logged of a dataset."""
        if dataset_name not in self._catalog:
            return {}
        metadata = getattr(self._catalog[dataset_name], "metadata", None) or {}
        return metadata.get("mlflow", {})

    def _end(self, status: str) -> None:
        if self._run is not None:
            self._run.end(status)
        self._run = None


def _without_messages() -> AbstractContextManager[Any]:
    """Hide messages of MLflow, such as that a model is registered, unless with `--verbose`."""
    if KedroCliError.VERBOSE_ERROR:
        return nullcontext()
    import_keras_quietly()  # MLflow tries the model, which needs Keras.
    # MLflow has a switch for its messages, but modules that it imports turn them on again.
    return redirect_stderr(StringIO())


def _fold_of(namespace: str | None) -> str | None:
    """Return `fold_3` for `training.fold_3`, and None for any other namespace."""
    pipeline, _, fold = (namespace or "").partition(".")
    return fold if pipeline == "training" and fold.startswith("fold_") else None
