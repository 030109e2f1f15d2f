"""An ordered map over clips, spread over processes, with a progress bar."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from threading import Thread
from typing import TypeVar

from joblib import Parallel, delayed
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_SECONDS = 0.5
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

    Args:
        function: a function that can be pickled.
        items: read lazily, as processes become free.
        n_jobs: number of processes; −1 for one per core, 1 to stay in this one.
        total: number of items, for the progress bar.
        description: what is done, before the bar.
        seconds: how long the sound of each item is, if the bar is to show hours of audio and
            the time left by them.
    """
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
    results = pool(delayed(_on_one_thread)(function, item) for item in items)
    # Closed, the generator ends its processes at once.
    with closing(results), _progress_bar(description, total, seconds) as bar:
        for index, result in enumerate(results):
            yield result
            _advance(bar, index, seconds)


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


def _progress_bar(description: str, total: int, seconds: Sequence[float] | None) -> tqdm:
    # `disable=None` hides the bar where nobody watches: output to a file or a pipe.
    if seconds is None:
        return tqdm(desc=description, total=total, unit="clip", disable=None)
    hours = sum(seconds) / 3600
    return tqdm(desc=description, total=hours, bar_format=_HOURS_BAR, disable=None)


def _advance(bar: tqdm, index: int, seconds: Sequence[float] | None) -> None:
    """Count the item at `index` as done."""
    if seconds is None:
        bar.update()
        return
    bar.set_postfix_str(f"{index + 1}/{len(seconds)} clips", refresh=False)
    bar.update(seconds[index] / 3600)
