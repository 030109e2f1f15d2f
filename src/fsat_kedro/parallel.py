"""An ordered map over clips, spread over processes, with a progress bar."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from joblib import Parallel, delayed
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_clips(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    n_jobs: int,
    total: int,
    description: str,
) -> Iterator[Result]:
    """Apply `function` to every item and give the results in the items' order.

    Args:
        function: a function that can be pickled.
        items: read lazily, as processes become free.
        n_jobs: number of processes; −1 for one per core, 1 to stay in this one.
        total: number of items, for the progress bar.
        description: what is done, before the bar.
    """
    # Items are sent whole: joblib's own memory-mapping would write each of them to disk first.
    pool = Parallel(n_jobs=n_jobs, return_as="generator", max_nbytes=None)
    results = pool(delayed(function)(item) for item in items)
    # `disable=None` hides the bar where nobody watches: output to a file or a pipe.
    yield from tqdm(results, desc=description, total=total, unit="clip", disable=None)
