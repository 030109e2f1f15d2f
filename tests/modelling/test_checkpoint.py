import numpy as np
import pytest

from fsat_kedro.modelling.checkpoint import Checkpoint, StageState


def arrays(*shapes):
    return [np.full(shape, index, np.float32) for index, shape in enumerate(shapes)]


def test_a_state_comes_back_as_it_was(tmp_path):
    rows = [{"epoch": 1, "phase": "low", "val_loss": float("nan"), "loss": 0.1}]
    # More than ten of them, so that an order by name would not do.
    state = StageState(rows, arrays(*[(2, 3)] * 12), [np.array(7, np.int64)], [])
    checkpoint = Checkpoint(tmp_path / "fold_1" / "mel.checkpoint.npz", "this stage")
    checkpoint.save(StageState([], [], [], arrays((5,))))
    checkpoint.save(state)
    loaded = checkpoint.load()
    np.testing.assert_equal(loaded.rows, rows)
    for name in ("weights", "optimiser", "best"):
        ours, theirs = getattr(state, name), getattr(loaded, name)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
    assert [path.name for path in (tmp_path / "fold_1").iterdir()] == ["mel.checkpoint.npz"]


def test_there_is_no_state_at_first_nor_of_another_stage(tmp_path):
    path = tmp_path / "mel.checkpoint.npz"
    assert Checkpoint(path, "this stage").load() is None
    Checkpoint(path, "another stage").save(StageState([], [], [], []))
    assert Checkpoint(path, "this stage").load() is None


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path):
    checkpoint = Checkpoint(tmp_path / "mel.checkpoint.npz", "this stage")
    checkpoint.save(StageState([{"epoch": 1}], [], [], []))
    with pytest.raises(TypeError):
        checkpoint.save(StageState([{"epoch": object()}], [], [], []))
    assert checkpoint.load().rows == [{"epoch": 1}]
