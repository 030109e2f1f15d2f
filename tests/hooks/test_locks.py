"""Two runs that read and write the same datasets."""

import subprocess
import sys

import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.locks import lock


def hold(folder, *names):
    """Start another process that holds locks until it is killed."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from fsat_kedro.hooks.locks import lock\n"
            "locks = lock(set(sys.argv[2:]), set(), Path(sys.argv[1]))\n"
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


def test_the_second_of_two_runs_stops_and_names_the_first(tmp_path, other_run):
    with pytest.raises(
        InputError, match=r"another run reads or writes scores in .*process"
    ) as error:
        lock({"mels", "scores"}, set(), tmp_path)
    assert str(other_run.pid) in str(error.value)
    assert "Wait until the other run ends, or set another data_dir" in str(error.value)


def test_a_refused_run_keeps_no_lock(tmp_path, other_run):
    with pytest.raises(InputError):
        lock({"mels", "scores"}, set(), tmp_path)
    process = hold(tmp_path, "mels")
    process.kill()
    process.wait()


def test_runs_without_a_common_output_run_side_by_side(tmp_path, other_run):
    with lock({"mels", "oof"}, set(), tmp_path):
        assert other_run.poll() is None


def test_a_killed_run_holds_no_lock(tmp_path, other_run):
    other_run.kill()
    other_run.wait()
    lock({"scores"}, set(), tmp_path).close()


def test_locks_end_with_the_run(tmp_path):
    lock({"scores"}, set(), tmp_path).close()
    with lock({"scores"}, set(), tmp_path):
        pass


def test_what_another_run_reads_may_be_read_but_not_written(tmp_path):
    with (
        lock({"scores"}, {"mels"}, tmp_path),
        lock({"plots"}, {"mels"}, tmp_path),
        pytest.raises(InputError, match="another run reads or writes mels"),
    ):
        lock({"mels"}, set(), tmp_path)


def test_what_another_run_writes_cannot_be_read(tmp_path, other_run):
    with pytest.raises(InputError, match="another run reads or writes weights"):
        lock({"tags"}, {"weights"}, tmp_path)
