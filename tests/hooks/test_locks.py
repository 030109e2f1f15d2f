"""Two runs that write the same, and what is left of a run that was killed."""

import subprocess
import sys

import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.locks import Marks, lock


def hold(folder, *names):
    """Another process that holds locks until it is killed."""
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


def test_the_second_of_two_runs_is_told_what_the_first_writes_and_which_it_is(tmp_path, other_run):
    with pytest.raises(
        InputError, match=r"another run reads or writes scores in .*process"
    ) as error:
        lock({"mels", "scores"}, set(), tmp_path)
    assert str(other_run.pid) in str(error.value)
    assert "Wait for its end, or set another data_dir" in str(error.value)


def test_the_run_that_is_told_keeps_no_lock(tmp_path, other_run):
    with pytest.raises(InputError):
        lock({"mels", "scores"}, set(), tmp_path)
    process = hold(tmp_path, "mels")
    process.kill()
    process.wait()


def test_runs_that_have_no_output_in_common_go_side_by_side(tmp_path, other_run):
    with lock({"mels", "oof"}, set(), tmp_path):
        assert other_run.poll() is None


def test_a_killed_run_keeps_nobody_out(tmp_path, other_run):
    other_run.kill()
    other_run.wait()
    lock({"scores"}, set(), tmp_path).close()


def test_locks_end_with_the_run(tmp_path):
    lock({"scores"}, set(), tmp_path).close()
    with lock({"scores"}, set(), tmp_path):
        pass


def test_nobody_writes_what_another_run_reads_but_others_may_read_it_too(tmp_path):
    with (
        lock({"scores"}, {"mels"}, tmp_path),
        lock({"plots"}, {"mels"}, tmp_path),
        pytest.raises(InputError, match="another run reads or writes mels"),
    ):
        lock({"mels"}, set(), tmp_path)


def test_nobody_reads_what_another_run_writes(tmp_path, other_run):
    with pytest.raises(InputError, match="another run reads or writes weights"):
        lock({"tags"}, {"weights"}, tmp_path)


def test_what_a_run_set_out_to_make_is_unfinished_until_it_is_made(tmp_path):
    marks = Marks(tmp_path)
    assert marks.unfinished() == set()
    marks.mark_unfinished({"mels", "scores"})
    marks.mark_finished("mels")
    marks.mark_finished("never marked")
    assert marks.unfinished() == {"scores"}
