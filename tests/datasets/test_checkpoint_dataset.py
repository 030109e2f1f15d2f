import pytest
from kedro.io import DatasetError

from fsat_kedro.datasets.checkpoint_dataset import CheckpointDataset
from fsat_kedro.modelling.checkpoint import StageState


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_a_checkpoint_is_loaded_before_its_file_exists(tmp_path, protocol):
    dataset = CheckpointDataset(filepath=f"{protocol}{tmp_path}/fold_1/mel.checkpoint.npz")
    assert not dataset.exists()
    checkpoint = dataset.load()
    checkpoint.save("this stage", StageState([{"epoch": 1}], [], [], []))
    assert dataset.exists()
    assert dataset.load().load("this stage").rows == [{"epoch": 1}]
    checkpoint.remove()
    assert not dataset.exists()


def test_a_checkpoint_cannot_be_saved_by_the_catalog(tmp_path):
    dataset = CheckpointDataset(filepath=str(tmp_path / "mel.checkpoint.npz"))
    with pytest.raises(DatasetError, match="written by the stage that trains"):
        dataset.save(dataset.load())
