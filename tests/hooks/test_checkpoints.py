import pickle

import pytest
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from fsat_kedro.datasets.checkpoint_dataset import CheckpointDataset
from fsat_kedro.hooks.checkpoints import CheckpointHooks
from fsat_kedro.modelling.checkpoint import StageState


class FailingDataset(MemoryDataset):
    """A dataset that cannot be saved."""

    def save(self, data):
        raise OSError("disk full")


def train(checkpoint):
    """Save a checkpoint as a stage does, and return weights and history."""
    checkpoint.save("this stage", StageState([], [], [], []))
    return "weights", "history"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mel.checkpoint.npz"


@pytest.fixture(params=[False, True], ids=["hooks", "unpickled hooks"])
def hook_manager(request):
    """The manager of a run, and that of a worker, to which the hooks are sent pickled."""
    from kedro.framework.hooks.manager import _create_hook_manager

    hooks = CheckpointHooks()
    manager = _create_hook_manager()
    manager.register(pickle.loads(pickle.dumps(hooks)) if request.param else hooks)
    return manager


def run(file, hook_manager, *, history=None, is_async=False):
    pipeline = Pipeline([node(train, "checkpoint", ["weights", "history"], name="train")])
    catalog = DataCatalog(
        {
            "checkpoint": CheckpointDataset(filepath=str(file)),
            "weights": MemoryDataset(),
            "history": history or MemoryDataset(),
        }
    )
    SequentialRunner(is_async=is_async).run(pipeline, catalog, hook_manager)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_checkpoint_is_removed_once_all_outputs_are_saved(file, hook_manager, is_async):
    for _ in range(2):
        run(file, hook_manager, is_async=is_async)
        assert not file.exists()


def test_a_checkpoint_stays_if_an_output_is_not_saved(file, hook_manager):
    with pytest.raises(DatasetError, match="disk full"):
        run(file, hook_manager, history=FailingDataset())
    assert file.exists()
    run(file, hook_manager)
    assert not file.exists()


def test_nodes_without_a_checkpoint_are_left_alone(hook_manager):
    pipeline = Pipeline([node(abs, "number", "absolute", name="absolute")])
    catalog = DataCatalog({"number": MemoryDataset(-1)})
    outputs = SequentialRunner().run(pipeline, catalog, hook_manager)
    assert outputs["absolute"].load() == 1
