"""Locks and unfinished marks of a run's outputs."""

from __future__ import annotations

import atexit
import logging
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.framework.hooks import hook_impl

from fsat_kedro.datasets.stored_dataset import StoredDataset, store_of
from fsat_kedro.errors import InputError
from fsat_kedro.files import remove
from fsat_kedro.hooks.locks import Marks, lock

if TYPE_CHECKING:
    from kedro.io import AbstractDataset, CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node


logger = logging.getLogger(__name__)


class OutputHooks:
    """Keeps two runs from writing the same, and outputs of an unfinished run from being mixed up.

    A run notes what it sets out to make, and takes an output from that list when it is saved. What
    is still on the list for `--only-missing-outputs` is left from before, and is made anew.
    """

    def __init__(self) -> None:
        self._locks = ExitStack()
        self._to_mark: set[str] = set()

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Make the folder that everything is written to, and lock what this run will write."""
        data_dir = Path(catalog.load("params:data_dir"))
        outputs = pipeline.all_outputs()
        store = store_of(catalog, outputs)
        self._marks = store or Marks(data_dir)
        self._to_mark = set() if run_params["only_missing_outputs"] else outputs
        inputs = {name for name in pipeline.inputs() if not name.startswith("params:")}
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._locks = lock(outputs, inputs - {"parameters"}, data_dir)
            atexit.register(self._locks.close)
            if store is not None:
                self._locks.enter_context(store.claim(outputs, inputs - {"parameters"}))
            if run_params["only_missing_outputs"]:
                for name in outputs & self._marks.unfinished():
                    _remove(catalog[name])
                _warn_of_outdated(pipeline, catalog)
        except OSError as error:
            raise ClickException(f"data_dir {data_dir} cannot be written to: {error}") from error
        except InputError as error:
            raise ClickException(str(error)) from error

    @hook_impl
    def before_node_run(self) -> None:
        """Note all that the run sets out to make, now that it has really begun."""
        self._marks.mark_unfinished(self._to_mark)
        self._to_mark = set()

    def for_worker(self, node: Node, hosts: set[str]) -> OutputHooks:
        """Hooks without locks, which stay with the run, for a node in another process."""
        self.before_node_run()
        hooks = OutputHooks()
        hooks._marks = self._marks
        return hooks

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_locks": None}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Take an output from the list."""
        self._marks.mark_finished(dataset_name)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Let the locks go."""
        self._locks.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Let the locks go."""
        self._locks.close()


def _warn_of_outdated(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Name the outputs that are older than what they are made from."""

    @cache
    def saved_at(name: str) -> float | None:
        if isinstance(catalog[name], StoredDataset):
            return catalog[name].saved_at()
        path = getattr(catalog[name], "_filepath", None)
        return Path(path).stat().st_mtime if path and Path(path).exists() else None

    outdated = []
    for node in pipeline.nodes:
        made_from = [saved_at(name) for name in node.inputs if name in catalog]
        newest = max((moment for moment in made_from if moment is not None), default=0)
        made = {name: saved_at(name) for name in node.outputs}
        outdated += [name for name, moment in made.items() if moment and moment < newest]
    if outdated:
        logger.warning(
            "Older than what they are made from, and kept as they are: %s. To make them anew, run "
            "without --only-missing-outputs",
            ", ".join(outdated),
        )


def _remove(dataset: AbstractDataset) -> None:
    if isinstance(dataset, StoredDataset):
        dataset.remove()
    else:
        remove(Path(dataset._filepath))
