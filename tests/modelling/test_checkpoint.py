import logging

import numpy as np
import pytest

from fsat_kedro.modelling.checkpoint import Checkpoint, StageState


def arrays(*shapes):
    return [np.full(shape, index, np.float32) for index, shape in enumerate(shapes)]


@pytest.fixture(params=["path", "url"])
def path(request, tmp_path):
    """The checkpoint of a stage, in a local folder or in an object store."""
    file = tmp_path / "fold_1" / "mel.checkpoint.npz"
    if request.param == "path":
        return file
    return f"memory://{file}"


def test_a_state_is_loaded_as_it_was_saved(path):
    rows = [{"epoch": 1, "phase": "low", "val_loss": float("nan"), "loss": 0.1}]
    # More than ten arrays, whose order by name would be another.
    state = StageState(rows, arrays(*[(2, 3)] * 12), [np.array(7, np.int64)], [])
    checkpoint = Checkpoint(path)
    checkpoint.save("this stage", StageState([], [], [], arrays((5,))))
    checkpoint.save("this stage", state)
    loaded = checkpoint.load("this stage")
    np.testing.assert_equal(loaded.rows, rows)
    for name in ("weights", "optimizer", "best"):
        ours, theirs = getattr(state, name), getattr(loaded, name)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


def test_a_local_file_is_the_only_one_in_its_folder(tmp_path):
    Checkpoint(tmp_path / "mel.checkpoint.npz").save("this stage", StageState([], [], [], []))
    assert [path.name for path in tmp_path.iterdir()] == ["mel.checkpoint.npz"]


def test_there_is_no_state_at_first_nor_of_another_stage_nor_after_removal(path):
    checkpoint = Checkpoint(path)
    assert checkpoint.load("this stage") is None
    checkpoint.save("another stage", StageState([], [], [], []))
    assert checkpoint.load("this stage") is None
    assert checkpoint.load("another stage") is not None
    checkpoint.remove()
    assert checkpoint.load("another stage") is None
    checkpoint.remove()


def test_a_failed_save_keeps_the_state_before(tmp_path):
    checkpoint = Checkpoint(tmp_path / "mel.checkpoint.npz")
    checkpoint.save("this stage", StageState([{"epoch": 1}], [], [], []))
    with pytest.raises(TypeError):
        checkpoint.save("this stage", StageState([{"epoch": object()}], [], [], []))
    assert checkpoint.load("this stage").rows == [{"epoch": 1}]


def test_a_save_that_fails_is_an_error_in_a_folder_and_a_warning_at_a_url(tmp_path, caplog):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Checkpoint(tmp_path / "file" / "mel.checkpoint.npz").save(
            "this stage", StageState([], [], [], [])
        )
    with caplog.at_level(logging.WARNING):
        Checkpoint("nowhere://bucket/mel.checkpoint.npz").save(
            "this stage", StageState([], [], [], [])
        )
    (message,) = caplog.messages
    assert message.startswith("The checkpoint could not be saved, training goes on: nowhere://")


@pytest.mark.parametrize("kept", [0, 1, 50, 0.5, -1])
def test_a_damaged_file_is_a_warning_and_no_state(tmp_path, caplog, kept):
    checkpoint = Checkpoint(tmp_path / "mel.checkpoint.npz")
    checkpoint.save("this stage", StageState([], arrays((100,)), [], []))
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    assert checkpoint.load("this stage") is None
    (message,) = caplog.messages
    assert message.startswith(f"{checkpoint.path} is damaged, so the stage starts anew: ")


def test_a_flipped_bit_is_a_warning_and_no_state(tmp_path, caplog):
    checkpoint = Checkpoint(tmp_path / "mel.checkpoint.npz")
    checkpoint.save("this stage", StageState([], arrays((100,)), [], []))
    content = bytearray(checkpoint.path.read_bytes())
    content[content.index(bytes(300)) + 100] ^= 1
    checkpoint.path.write_bytes(content)
    assert checkpoint.load("this stage") is None
    assert "Bad CRC" in caplog.text
