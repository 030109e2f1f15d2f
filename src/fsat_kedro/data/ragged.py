"""Many arrays of different lengths, kept as one.

Axes: n items, item i has shape (t_i, *rest); N = sum of all t_i.
"""

import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fsat_kedro.files import read_range


@dataclass(frozen=True, eq=False)
class RaggedArray:
    """A sequence of n arrays that differ only in their first axis.

    Attributes:
        values: (N, *rest), the items end to end; may be a whole memory-mapped file.
        offsets: (n + 1,) int64, item i is `values[offsets[i]:offsets[i + 1]]`.
        url: of the object that `values` is a local copy of, where other machines read items; None
            for values that come from no store.
    """

    values: np.ndarray
    offsets: np.ndarray
    url: str | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Return item `index`, shape (t, *rest), as a NumPy view."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a ragged array of {len(self)} items")
        index %= len(self)
        # Slices of a memory map would be memory maps, which take ten times as long to make.
        return np.asarray(self.values)[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def reader(self, index: int) -> Callable[[], np.ndarray]:
        """Return a function that returns item `index`, in any process, on any machine.

        The function reads the item alone from a memory-mapped file. Pages that are read through
        the map would count as memory of the process, more with every item.
        """
        item = self[index]
        file = getattr(self.values, "filename", None)
        if file is None:
            # Copied, because another process cannot find a mapped file without a name.
            return partial(np.asarray, np.array(item))
        assert isinstance(self.values, np.memmap)
        start = self.values.offset + int(self.offsets[index]) * self.values[:1].nbytes
        here = socket.gethostname()
        return partial(_read, str(file), item.dtype, item.shape, start, self.url, here)

    @property
    def lengths(self) -> np.ndarray:
        """Return the length of each item, (n,) int64."""
        return np.diff(self.offsets)


def _read(
    path: str, dtype: np.dtype, shape: tuple[int, ...], start: int, url: str | None, host: str
) -> np.ndarray:
    """Read an array that begins at byte `start` of a file of `host`, or else of the url."""
    count = int(np.prod(shape))
    if url is None or (host == socket.gethostname() and Path(path).exists()):
        return np.fromfile(path, dtype, count=count, offset=start).reshape(shape)
    content = read_range(url, start, start + count * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape)


def gather(arrays: Iterable[np.ndarray], *, spool_dir: Path | str | None) -> RaggedArray:
    """Collect arrays into one ragged array, in constant memory.

    The values pass through an unnamed temporary file. An iterator may therefore yield more data
    than fits into memory, and a killed process leaves nothing behind.

    Args:
        arrays: at least one array; all of one dtype and equal in all axes but the first.
        spool_dir: an existing folder with room for all values; None for the system's.

    Raises:
        ValueError: there is no array, or one differs in dtype or in a later axis.
    """
    offsets = [0]
    first = None
    with tempfile.TemporaryFile(dir=spool_dir) as file:
        for index, array in enumerate(arrays):
            if first is None:
                first = array[:0]
            if array.dtype != first.dtype or array.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"array {index} is {array.dtype} {array.shape}, the first one was "
                    f"{first.dtype} (…, {', '.join(map(str, first.shape[1:]))})"
                )
            file.write(np.ascontiguousarray(array).data)
            offsets.append(offsets[-1] + len(array))
        if first is None:
            raise ValueError("no arrays to gather")
        file.flush()
        if offsets[-1] == 0:
            values = np.array(first)
        else:
            shape = (offsets[-1], *first.shape[1:])
            values = np.memmap(file, dtype=first.dtype, mode="r", shape=shape)
    return RaggedArray(values, np.asarray(offsets, dtype=np.int64))
