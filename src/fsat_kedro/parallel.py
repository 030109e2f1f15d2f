"""An ordered map over clips, spread over processes or a cluster, with its progress."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cache
from itertools import islice
from threading import Thread
from typing import Any, TypeVar

from joblib import Parallel, delayed
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_BATCH_SECONDS = 0.25  # Least work in a batch on a cluster; sending it takes a hundredth of that.
_BATCHES_PER_WORKER = 4  # Submitted, or waiting for an earlier one.
_COUNT_SECONDS = 10  # Between two counts of the workers.
_LOG_SECONDS = 30  # Between two log lines on the progress of a map on a cluster.
_HOURS_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.2f}/{total:.2f} h of audio{postfix} "
    "[{elapsed}<{remaining}]"
)


def map_clips(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    n_jobs: int,
    total: int,
    description: str,
    seconds: Sequence[float] | None = None,
) -> Iterator[Result]:
    """Apply `function` to every item and yield the results in the items' order.

    Each process computes with one thread, so that processes do not compete for cores and results
    do not depend on their number. Short tasks travel in batches. Closing the generator, an
    error or Ctrl-C ends all processes at once.

    In a node that runs on a Dask worker, the processes are the cluster's workers. Log lines, which
    the runner forwards, take the place of the progress bar there.

    Args:
        function: a function that can be pickled.
        items: read lazily, as processes become free.
        n_jobs: number of processes; −1 for one per core or all workers, 1 to stay in this one.
        total: number of items.
        description: text before the progress bar; "" for no bar.
        seconds: duration of each item's sound, for a bar in hours of audio.
    """
    on_cluster = _on_dask_worker()
    if on_cluster and n_jobs != 1:
        results = _map_on_cluster(function, iter(items), n_jobs)
    else:
        results = _map_on_processes(function, items, n_jobs)
    # Closing the generator ends its processes at once.
    with closing(results), _progress_bar(description, total, seconds, log=on_cluster) as bar:
        for index, result in enumerate(results):
            yield result
            if seconds is None:
                bar.update()
            else:
                bar.set_postfix_str(f"{index + 1}/{len(seconds)} clips", refresh=False)
                bar.update(float(seconds[index]) / 3600)


def _on_dask_worker() -> bool:
    """Return whether this is a task of a Dask worker, without importing Dask."""
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _map_on_processes(
    function: Callable[[Item], Result], items: Iterable[Item], n_jobs: int
) -> Generator[Result, None, None]:
    # joblib's warnings when it is interrupted, for which it has no setting.
    for warning in ("have been successfully executed", "which were still being processed"):
        warnings.filterwarnings("ignore", rf"\d+ tasks {warning}", UserWarning)
    # No memory-mapping: joblib would first write each item to disk.
    pool = Parallel(
        n_jobs=n_jobs,
        return_as="generator",
        max_nbytes=None,
        initializer=_follow_parent,
        initargs=(os.getpid(),),
    )
    return pool(delayed(_on_one_thread)(function, item) for item in items)


def _map_on_cluster(
    function: Callable[[Item], Result], items: Iterator[Item], n_jobs: int
) -> Generator[Result, None, None]:
    """Map on the workers of the cluster that this task runs on.

    joblib's Dask backend does not serve: at its end it waits for a free thread of this worker,
    which a fold may have taken for hours.
    """
    from distributed import get_client, secede

    client = get_client()
    with suppress(KeyError):  # Raised if an earlier map of this task has done it.
        secede()  # This worker may do other work while this task waits for its clips.
    futures: deque = deque()
    counted, n_batches, size = -float("inf"), 0, 1
    try:
        while True:
            if time.monotonic() - counted > _COUNT_SECONDS:
                n_workers = sum(client.nthreads().values())
                n_batches = _BATCHES_PER_WORKER * max(1, n_workers if n_jobs < 0 else n_jobs)
                counted = time.monotonic()
            while len(futures) < n_batches and (batch := list(islice(items, size))):
                # Before nodes that wait, which may take hours.
                futures.append(client.submit(_map_batch, function, batch, pure=False, priority=10))
            if not futures:
                return
            seconds, results = futures.popleft().result()
            if seconds < _BATCH_SECONDS and len(results) == size:
                size *= 2
            yield from results
    finally:
        client.cancel(list(futures))


def _map_batch(function: Callable[[Item], Result], items: list[Item]) -> tuple[float, list[Result]]:
    """Return the seconds that a batch took, and its results."""
    start = time.monotonic()
    results = [_on_one_thread(function, item) for item in items]
    return time.monotonic() - start, results


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    with _thread_pools().limit(limits=1):
        return function(item)


# Finding the thread pools of this process takes longer than some tasks.
_thread_pools = cache(ThreadpoolController)


def _follow_parent(parent: int) -> None:
    """Have this process ignore Ctrl-C, and end with the process that started it.

    A terminal sends Ctrl-C to all processes, and the parent ends the others. A parent that is
    killed cannot, and they would wait for minutes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


class _LogStream:
    """A stream for tqdm that logs what is written to it."""

    def write(self, text: str) -> None:
        if text.strip():
            logger.info(text.strip())

    def flush(self) -> None:
        """Do nothing: a log line is complete."""


def _progress_bar(
    description: str, total: int, seconds: Sequence[float] | None, *, log: bool
) -> tqdm:
    """Create a bar that shows itself in a terminal, or logs a line from time to time."""
    # `disable=None` hides the bar where the output goes to a file or a pipe.
    options: dict[str, Any] = {"desc": description, "disable": None if description else True}
    if log:
        times = dict.fromkeys(("delay", "mininterval", "maxinterval"), _LOG_SECONDS)
        options |= {"file": _LogStream(), **times}
    if seconds is None:
        return tqdm(total=total, unit="clip", **options)
    return tqdm(total=float(sum(seconds)) / 3600, bar_format=_HOURS_BAR, **options)
