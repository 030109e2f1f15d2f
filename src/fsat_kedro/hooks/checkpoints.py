"""Where a stage keeps its state."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from fsat_kedro.datasets.filepath import filepath_of
from fsat_kedro.errors import InputError
from fsat_kedro.files import exists, is_url, local_copy, local_path, open_atomic, remove

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline.node import Node


logger = logging.getLogger(__name__)


class CheckpointHooks:
    """Has a stage keep its state beside its weights, until these are saved.

    A stage that was interrupted goes on from there; see `training.train_stage`.
    """

    def __init__(self) -> None:
        self._unsaved: dict[str, set[str]] = {}

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol) -> None:
        """Tell a stage that is about to train where to keep its state."""
        weights = next((name for name in node.outputs if "_weights" in name), None)
        if weights is None:
            return
        from fsat_kedro.modelling.training import keep_checkpoint_at

        path = filepath_of(catalog[weights]).replace(".weights.h5", ".checkpoint.npz")
        self._unsaved[path] = set(node.outputs)
        cache_dir = getattr(catalog[weights], "_cache_dir", "")
        if is_url(path) and exists(path):
            local_copy(path, cache_dir)
        local = local_path(path, cache_dir)
        keep_checkpoint_at(local, partial(_send, path) if is_url(path) else None)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Remove the state of a stage whose outputs are all saved."""
        for path, names in self._unsaved.items():
            if dataset_name in names:
                names.remove(dataset_name)
                if not names:
                    remove(path)


def _send(url: str, local: Path) -> None:
    """Keep a state where another machine finds it; training goes on if that fails."""
    try:
        with open_atomic(url) as file:
            file.write(local.read_bytes())
    except InputError as error:
        logger.warning("The state after this epoch is on this machine only: %s", error)
