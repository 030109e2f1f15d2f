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
from kedro.framework.project import pipelines
from kedro.io.core import is_parameter
from kedro.pipeline import Pipeline

from fsat_kedro.datasets.filepath import filepath_of
from fsat_kedro.errors import InputError
from fsat_kedro.files import exists, modified_at, probe_file, remove
from fsat_kedro.hooks.locks import lock
from fsat_kedro.hooks.marks import Marks

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline.node import Node


logger = logging.getLogger(__name__)

_MAX_NAMED = 10
"""Outdated outputs that a warning names."""


class OutputHooks:
    """Lock a run's datasets, and mark its outputs as unfinished until they are saved.

    A marked output is old or half-written. `--only-missing-outputs` makes it anew, and no run
    reads it as an input.
    """

    def __init__(self) -> None:
        self._locks = ExitStack()
        self._to_mark: set[str] = set()

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Check that outputs can be written and inputs are finished, and lock them all."""
        self._locks.close()  # Of a run in this process that stopped before its first node.
        data_dir: str = catalog.load("params:data_dir")
        spool_dir = Path(catalog.load("params:spool_dir"))
        only_missing = run_params["only_missing_outputs"]
        outputs = pipeline.all_outputs()
        inputs = {name for name in pipeline.inputs() if not is_parameter(name)}
        self._marks = Marks(data_dir)
        self._to_mark = set() if only_missing else outputs
        try:
            spool_dir.mkdir(parents=True, exist_ok=True)
            with probe_file(data_dir):
                pass
            if "tagger" in inputs and _is_saved("tagger", catalog):
                inputs |= catalog["tagger"].parts().keys()
            self._locks = lock(outputs, inputs, spool_dir)
            atexit.register(self._locks.close)
            # Loading a missing input says better what to do.
            self._marks.require_finished({name for name in inputs if _is_saved(name, catalog)})
            if only_missing:
                for name in outputs & self._marks.unfinished():
                    if (path := filepath_of(catalog[name])) is not None:
                        remove(path)
            kept = _makers(inputs)
            _warn_of_outdated(kept + pipeline if only_missing else kept, catalog)
        except OSError as error:
            raise ClickException(f"data_dir {data_dir} cannot be written to: {error}") from error
        except InputError as error:
            raise ClickException(str(error)) from error

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Mark the node's outputs; before the first node, all that the run is to make."""
        self._marks.mark_unfinished(self._to_mark | set(node.outputs))
        self._to_mark = set()

    def for_worker(self, node: Node, hosts: set[str]) -> OutputHooks:
        """Return hooks for a node in another process; the locks stay with the run."""
        self.before_node_run(node)
        hooks = OutputHooks()
        hooks._marks = self._marks
        return hooks

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_locks": None}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Clear the mark of an output."""
        self._marks.mark_finished(dataset_name)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Release the locks."""
        self._locks.close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Release the locks."""
        self._locks.close()


def _makers(names: set[str]) -> Pipeline:
    """Return the nodes that make datasets from the first input on."""
    project = pipelines.get("__default__", Pipeline([]))
    return project.to_outputs(*(names & project.all_outputs()))


def _warn_of_outdated(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Name the outputs that are older than what they are made from."""

    @cache
    def saved_at(name: str) -> float | None:
        path = filepath_of(catalog[name])
        return None if path is None else modified_at(path)

    outdated = []
    for node in pipeline.nodes:
        inputs = [saved_at(name) for name in node.inputs if name in catalog]
        newest = max((moment for moment in inputs if moment is not None), default=0)
        outputs = {name: saved_at(name) for name in node.outputs}
        outdated += [name for name, moment in outputs.items() if moment and moment < newest]
    if outdated:
        more = f" and {len(outdated) - _MAX_NAMED} more" if len(outdated) > _MAX_NAMED else ""
        logger.warning(
            "Older than what they are made from, and kept as they are: %s%s. To make them anew, "
            "run the pipelines that make them, without --only-missing-outputs",
            ", ".join(outdated[:_MAX_NAMED]),
            more,
        )


def _is_saved(name: str, catalog: CatalogProtocol) -> bool:
    path = filepath_of(catalog[name]) if name in catalog else None
    return path is not None and exists(path)
