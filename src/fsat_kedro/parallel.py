"""An ordered map over clips, spread over processes or a cluster, with a progress bar."""

from __future__ import annotations

import os
import signal
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from threading import Thread
from typing import Any, TypeVar

from joblib import Parallel, delayed
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

Teller = Callable[[dict[str, Any]], None]

# Set where the clips of a map go to a Dask cluster: what tells of progress there.
_teller: ContextVar[Teller | None] = ContextVar("teller", default=None)

_POLL_SECONDS = 0.5
_BATCH_SECONDS = 0.25  # Of work on a cluster, at least: some hundred times what sending it takes.
_BATCHES_A_WORKER = 4  # Under way, or waiting for an earlier one.
_LOOK_SECONDS = 10
_TELL_SECONDS = 0.2
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
    """Apply `function` to every item and give the results in the items' order.

    Each process computes with one thread, so that no core is fought for and results do not
    depend on the number of processes. Short tasks travel in batches. Where the results are not
    asked for any more, after an error or an interruption, all processes end at once.

    In a node that runs on a Dask worker (`spread_over_cluster`) the processes are the cluster's
    workers, and the bar is shown where the run was started.

    Args:
        function: a function that can be pickled.
        items: read lazily, as processes become free.
        n_jobs: number of processes; −1 for one per core or all workers, 1 to stay in this one.
        total: number of items, for the progress bar.
        description: what is done, before the bar.
        seconds: how long the sound of each item is, if the bar is to show hours of audio and
            the time left by them.
    """
    tell = _teller.get()
    if tell is not None and n_jobs != 1:
        results = _on_cluster(function, iter(items), n_jobs)
    else:
        results = _on_processes(function, items, n_jobs)
    # Closed, the generator ends its processes at once.
    with closing(results), _progress_bar(description, total, seconds) as bar:
        for index, result in enumerate(results):
            yield result
            _advance(bar, index, seconds)


@contextmanager
def spread_over_cluster(tell: Teller) -> Iterator[None]:
    """In a task of a Dask worker, have clips mapped by all workers.

    Args:
        tell: takes what is to be shown where the run was started; `Bars.show` takes it there.
    """
    token = _teller.set(tell)
    try:
        yield
    finally:
        _teller.reset(token)


def _on_processes(
    function: Callable[[Item], Result], items: Iterable[Item], n_jobs: int
) -> Iterator[Result]:
    # joblib's remark when it is interrupted, for which there is no setting.
    warnings.filterwarnings("ignore", r"\d+ tasks have been successfully executed", UserWarning)
    # Items are sent whole: joblib's own memory-mapping would write each of them to disk first.
    pool = Parallel(
        n_jobs=n_jobs,
        return_as="generator",
        max_nbytes=None,
        initializer=_follow_parent,
        initargs=(os.getpid(),),
    )
    return pool(delayed(_on_one_thread)(function, item) for item in items)


def _on_cluster(
    function: Callable[[Item], Result], items: Iterator[Item], n_jobs: int
) -> Iterator[Result]:
    """Map on the workers of the cluster that this task runs on.

    joblib's own way to Dask would have this task, at the end, wait for a place in its worker
    again, which a fold may have taken for hours.
    """
    from distributed import get_client

    client = get_client()
    _leave_place()
    under_way: deque = deque()
    looked, n_batches, size = -float("inf"), 0, 1
    try:
        while True:
            if time.monotonic() - looked > _LOOK_SECONDS:
                n_workers = sum(client.nthreads().values())
                n_batches = _BATCHES_A_WORKER * max(1, n_workers if n_jobs < 0 else n_jobs)
                looked = time.monotonic()
            while len(under_way) < n_batches and (batch := list(islice(items, size))):
                # Before nodes that wait, which may take hours.
                future = client.submit(_batch, function, batch, pure=False, priority=10)
                under_way.append(future)
            if not under_way:
                return
            seconds, results = under_way.popleft().result()
            if seconds < _BATCH_SECONDS and len(results) == size:
                size *= 2
            yield from results
    finally:
        client.cancel(list(under_way))


def _leave_place() -> None:
    """Let this worker have other work while this task waits for its clips."""
    from distributed import secede

    try:
        secede()
    except KeyError:  # It has left already, for an earlier map.
        return


def _batch(function: Callable[[Item], Result], items: list[Item]) -> tuple[float, list[Result]]:
    """The seconds that a batch took, and its results."""
    began = time.monotonic()
    results = [_on_one_thread(function, item) for item in items]
    return time.monotonic() - began, results


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    with _thread_pools().limit(limits=1):
        return function(item)


@lru_cache
def _thread_pools() -> ThreadpoolController:
    """The thread pools of this process; to look for them takes longer than some tasks."""
    return ThreadpoolController()


def _follow_parent(parent: int) -> None:
    """Have this process end with the one that started it, and not by Ctrl-C of its own.

    A terminal sends Ctrl-C to all processes; the parent ends the others. Where it is killed it
    cannot, and they would wait for minutes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


@dataclass
class _Told:
    """A bar that is shown elsewhere; the interface is tqdm's."""

    bar: str
    description: str
    total: int
    seconds: float | None
    tell: Teller
    done: float = 0
    postfix: str = ""
    told_at: float = -float("inf")

    def update(self, n: float = 1) -> None:
        self.done += n
        if time.monotonic() - self.told_at > _TELL_SECONDS:
            self._tell_now()

    def set_postfix_str(self, postfix: str, *, refresh: bool) -> None:
        self.postfix = postfix

    def __enter__(self) -> _Told:
        self._tell_now()
        return self

    def __exit__(self, *_: object) -> None:
        self._tell_now(over=True)

    def _tell_now(self, *, over: bool = False) -> None:
        self.told_at = time.monotonic()
        told = {
            name: getattr(self, name)
            for name in ("bar", "description", "total", "seconds", "done", "postfix")
        }
        self.tell({**told, "over": over})


class Bars:
    """Shows the progress of maps that run in other processes."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}

    def show(
        self,
        bar: str,
        description: str,
        total: int,
        seconds: float | None,
        done: float,
        postfix: str,
        *,
        over: bool,
    ) -> None:
        """Bring a bar to where its map has come, as the teller of `spread_over_cluster` told."""
        if bar not in self._bars:
            self._bars[bar] = _tqdm(description, total, seconds)
        shown = self._bars[bar]
        if postfix:
            shown.set_postfix_str(postfix, refresh=False)
        shown.update(done - shown.n)
        if over:
            self._bars.pop(bar).close()

    def close(self) -> None:
        """End the bars that are still there, after an error."""
        for bar in self._bars.values():
            bar.close()


def _progress_bar(description: str, total: int, seconds: Sequence[float] | None) -> tqdm | _Told:
    whole = None if seconds is None else float(sum(seconds))
    tell = _teller.get()
    if tell is not None:
        return _Told(uuid.uuid4().hex, description, total, whole, tell)
    return _tqdm(description, total, whole)


def _tqdm(description: str, total: int, seconds: float | None) -> tqdm:
    # `disable=None` hides the bar where nobody watches: output to a file or a pipe.
    if seconds is None:
        return tqdm(desc=description, total=total, unit="clip", disable=None)
    return tqdm(desc=description, total=seconds / 3600, bar_format=_HOURS_BAR, disable=None)


def _advance(bar: tqdm | _Told, index: int, seconds: Sequence[float] | None) -> None:
    """Count the item at `index` as done."""
    if seconds is None:
        bar.update()
        return
    bar.set_postfix_str(f"{index + 1}/{len(seconds)} clips", refresh=False)
    bar.update(float(seconds[index]) / 3600)
