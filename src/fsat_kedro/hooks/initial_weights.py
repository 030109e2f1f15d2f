"""Download of the encoder's initial weights before the first node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click import ClickException
from kedro.framework.hooks import hook_impl

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.progress import import_keras_quietly
from fsat_kedro.parameters import Model

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline


_STARTS = (".train_mel", ".embed_clips")
"""Ends of the names of nodes that start from the initial weights."""


class InitialWeightsHooks:
    """Download the encoder's initial weights before a run that trains stage mel or embeds clips.

    Without a network the run stops at once, and not after hours of preprocessing and features.
    """

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """Download the weights, or raise an error that says how to get them."""
        model = Model.model_validate(catalog.load("params:model"))
        if model.weights is None or not _trains(run_params, pipeline, catalog):
            return
        import_keras_quietly()
        from fsat_kedro.modelling.encoders import fetch_weights

        try:
            fetch_weights(model, catalog.load("params:cache_dir"))
        except InputError as error:
            raise ClickException(str(error)) from error


def _trains(run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> bool:
    """Return whether a node that starts from the initial weights is going to run."""
    nodes = [node for node in pipeline.nodes if node.name.endswith(_STARTS)]
    outputs = {name for node in nodes for name in node.outputs}
    if run_params["only_missing_outputs"]:
        outputs = {name for name in outputs if not catalog[name].exists()}
    return bool(outputs)
