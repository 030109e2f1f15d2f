"""Where a stage keeps its state."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from fsat_kedro.datasets.stored_dataset import store_of
from fsat_kedro.errors import InputError
from fsat_kedro.store import Store

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline.node import Node


logger = logging.getLogger(__name__)


class CheckpointHooks:
    """Has a stage keep its state beside its weights, until these are saved.

    A stage that was interrupted goes on from there; see `training.train_stage`.
    """

    def __init__(self) -> None:
        self._unsaved: dict[Path, set[str]] = {}
        self._store: Store | None = None

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol) -> None:
        """Tell a stage that is about to train where to keep its state."""
        weights = next((name for name in node.outputs if "_weights" in name), None)
        if weights is None:
            return
        from fsat_kedro.modelling.training import keep_checkpoint_at

        file = Path(catalog[weights]._filepath)
        path = file.with_name(file.name.replace(".weights.h5", ".checkpoint.npz"))
        self._unsaved[path] = set(node.outputs)
        self._store = store_of(catalog, [weights])
        if self._store is None:
            keep_checkpoint_at(path)
        else:
            self._store.fetch(path)
            keep_checkpoint_at(path, self._send)

    def _send(self, path: Path) -> None:
        """Keep a state where another machine finds it; training goes on if that fails."""
        try:
            self._store.send(path)
        except InputError as error:
            logger.warning("The state after this epoch is on this machine only: %s", error)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Remove the state of a stage whose outputs are all saved."""
        for path, names in self._unsaved.items():
            if dataset_name in names:
                names.remove(dataset_name)
                if not names and self._store is not None:
                    self._store.remove(path)
                elif not names:
                    path.unlink(missing_ok=True)
