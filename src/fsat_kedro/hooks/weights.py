"""A check that weights of an earlier run predict with what they were trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.framework.hooks import hook_impl

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.parameters import Model

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

    from fsat_kedro.datasets import TaggerDataset

_FITTED = {"mel_statistics", "projector", "classes"}


class WeightsHooks:
    """Refuse to predict with old weights beside a new projector, mel statistics or classes.

    `tagger.json` has the digests of those that the weights were trained with.
    """

    def __init__(self) -> None:
        self._kept: set[str] = set()
        self._tagger: TaggerDataset

    @hook_impl(tryfirst=True)  # After OutputHooks, which are registered later.
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Find the weights of earlier runs, and check that they can be used."""
        self._kept = set()
        only_missing = run_params["only_missing_outputs"]
        candidates = pipeline.datasets() if only_missing else pipeline.inputs()
        if "tagger" not in catalog:
            return
        stage = Model.model_validate(catalog.load("params:model")).stages[-1]
        weights = {name for name in candidates if name.startswith(f"{stage}_weights_")}
        if not weights:
            return
        unfinished = Marks(catalog.load("params:data_dir")).unfinished()
        if "tagger" in unfinished or not catalog["tagger"].exists():
            return
        self._tagger = catalog["tagger"]
        self._kept = {name for name in weights - unfinished if catalog[name].exists()}
        if only_missing:  # The run may fit a missing part before it predicts.
            return
        try:
            for node in pipeline.nodes:
                self.before_node_run(node)
        except InputError as error:
            raise ClickException(str(error)) from error
        self._kept = set()

    @hook_impl(tryfirst=True)  # Before OutputHooks mark the outputs of the node.
    def before_node_run(self, node: Node) -> None:
        """Check a node that predicts."""
        if self._kept & set(node.inputs) and "tagger" not in node.outputs:
            self._tagger.require_same(_FITTED)

    def for_worker(self, node: Node, hosts: set[str]) -> WeightsHooks:
        """Check a node before another process runs it, and return hooks that check nothing."""
        self.before_node_run(node)
        return WeightsHooks()
