import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fsat_kedro.parallel import map_clips


def square(number):
    return number**2


def slow_after_the_first(number):
    time.sleep(0.4 if number else 0)
    return number


def fail_at(number, *, bad):
    if number == bad:
        raise ValueError(f"clip {number}")
    return number


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_results_come_in_the_order_of_the_items(n_jobs):
    results = map_clips(square, iter(range(20)), n_jobs=n_jobs, total=20, description="")
    assert list(results) == [number**2 for number in range(20)]


# After closing, joblib's thread may still ask for a cancelled task, and end with a harmless
# KeyError.
@pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_items_are_read_only_a_few_ahead_of_the_results(n_jobs):
    read = []

    def items():
        for number in range(100_000):
            read.append(number)
            yield number

    results = map_clips(square, items(), n_jobs=n_jobs, total=100_000, description="")
    assert not read
    assert next(results) == 0
    assert 1 <= len(read) < 50_000
    results.close()


def test_a_map_that_is_closed_while_clips_are_at_work_ends_quietly(recwarn):
    results = map_clips(slow_after_the_first, range(9), n_jobs=2, total=9, description="")
    assert next(results) == 0
    results.close()
    assert not recwarn.list


def test_no_items_give_no_results():
    assert list(map_clips(square, [], n_jobs=1, total=0, description="")) == []


def test_an_error_in_one_clip_reaches_the_caller():
    results = map_clips(partial(fail_at, bad=3), range(9), n_jobs=2, total=9, description="")
    with pytest.raises(ValueError, match="clip 3"):
        list(results)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_bar_shows_clips_and_hours_of_audio(n_jobs, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    seconds = [1800.0, 3600.0, 1800.0]
    results = map_clips(
        square, range(3), n_jobs=n_jobs, total=3, description="squares", seconds=seconds
    )
    assert list(results) == [0, 1, 4]
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("squares: 100%")
    assert "2.00/2.00 h of audio, 3/3 clips [" in last


def most_threads(_):
    return max(pool["num_threads"] for pool in threadpool_info())


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_process_computes_with_one_thread(n_jobs):
    function = partial(most_threads)
    function.loads = np.linalg.norm  # A worker has no pools before it has loaded NumPy.
    threads = map_clips(function, range(4), n_jobs=n_jobs, total=4, description="")
    assert list(threads) == [1] * 4


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_still_reaches_this_process_afterwards(n_jobs):
    handler = signal.getsignal(signal.SIGINT)
    list(map_clips(square, range(3), n_jobs=n_jobs, total=3, description=""))
    assert signal.getsignal(signal.SIGINT) is handler


SLOW_MAP = """
import signal, sys, time
import numpy as np
from fsat_kedro.parallel import map_clips
from fsat_kedro.data.ragged import gather

# A process that was started in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

def slow(number):
    time.sleep(0.1)
    return np.arange(number)

results = map_clips(slow, range(10_000), n_jobs=2, total=10_000, description="")
def with_messages():
    for result in results:
        print("started", flush=True)
        yield result
gather(with_messages(), spool_dir=sys.argv[1])
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look for processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_map_ends_at_once_and_leaves_no_process_and_no_file(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_MAP, str(tmp_path)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(20):  # Until both processes are at work.
        process.stdout.readline()
    # Ctrl-C goes to all processes of a terminal, a kill to one.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -number
    assert "tasks have been" not in errors
    assert errors.count("KeyboardInterrupt") == (number == signal.SIGINT)
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 20
    while in_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert in_session(process.pid) == []


def in_session(session):
    """Return the ids of the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, process_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(process_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
