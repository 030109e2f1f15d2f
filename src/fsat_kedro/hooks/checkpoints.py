"""Removal of checkpoints that are no longer needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from fsat_kedro.modelling.checkpoint import Checkpoint

if TYPE_CHECKING:
    from kedro.pipeline.node import Node


class CheckpointHooks:
    """Removes the checkpoint of a stage once all outputs of its node are saved.

    A run that is killed before that leaves the checkpoint, and the next run resumes from it.
    """

    def __init__(self) -> None:
        self._training: dict[str, tuple[Checkpoint, set[str]]] = {}

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Remember the checkpoint among a node's inputs, and the outputs that are not saved yet."""
        for data in inputs.values():
            if isinstance(data, Checkpoint):
                self._training[node.name] = (data, set(node.outputs))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Remove the checkpoint after the node's last output."""
        if node.name in self._training:
            checkpoint, unsaved = self._training[node.name]
            unsaved.discard(dataset_name)
            if not unsaved:
                checkpoint.remove()
                del self._training[node.name]
