"""Two runs that write the same, and what is left of a run that was killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.locks import lock_outputs


def hold(folder, *names):
    """Another process that holds locks until it is killed."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from fsat_kedro.locks import lock_outputs\n"
            "locks = lock_outputs(sys.argv[2:], Path(sys.argv[1]))\n"
            "print('held', flush=True); time.sleep(600)",
            str(folder),
            *names,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def other_run(tmp_path):
    process = hold(tmp_path, "scores", "weights")
    yield process
    process.kill()
    process.wait()


def test_the_second_of_two_runs_is_told_what_the_first_writes_and_which_it_is(tmp_path, other_run):
    with pytest.raises(InputError, match=r"another run writes scores in .*process") as error:
        lock_outputs(["mels", "scores"], tmp_path)
    assert str(other_run.pid) in str(error.value)
    assert "Wait for its end, or set another data_dir" in str(error.value)


def test_the_run_that_is_told_keeps_no_lock(tmp_path, other_run):
    with pytest.raises(InputError):
        lock_outputs(["mels", "scores"], tmp_path)
    process = hold(tmp_path, "mels")
    process.kill()
    process.wait()


def test_runs_that_have_no_output_in_common_go_side_by_side(tmp_path, other_run):
    with lock_outputs(["mels", "oof"], tmp_path):
        assert other_run.poll() is None


def test_a_killed_run_keeps_nobody_out(tmp_path, other_run):
    other_run.kill()
    other_run.wait()
    lock_outputs(["scores"], tmp_path).close()


def test_locks_end_with_the_run(tmp_path):
    lock_outputs(["scores"], tmp_path).close()
    with lock_outputs(["scores"], tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"data_dir .* cannot be written to: .*Permission denied"):
        lock_outputs(["scores"], tmp_path)
