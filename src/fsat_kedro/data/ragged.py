"""Many arrays of different length kept as one.

Axes: n items, item i has shape (t_i, *rest); N = sum of all t_i.
"""

import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class RaggedArray:
    """A sequence of n arrays that differ in their first axis alone.

    Attributes:
        values: (N, *rest), the items end to end; may be a whole memory-mapped array.
        offsets: (n + 1,) int64, item i is `values[offsets[i]:offsets[i + 1]]`.
        home: of a copy, the machine that it is on and the address that others read it at.
    """

    values: np.ndarray
    offsets: np.ndarray
    home: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Item `index`, shape (t, *rest), as a view."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a ragged array of {len(self)} items")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def reader(self, index: int) -> Callable[[], np.ndarray]:
        """A function that returns item `index`, here, in another process or on another machine.

        Of a memory-mapped file it reads the item itself and no more: pages that are looked at
        through the map would count as memory of the process, more with every item.
        """
        item = self[index]
        if getattr(self.values, "filename", None) is None:
            # Copied, because a mapped file without a name cannot be found by another process.
            return partial(np.asarray, np.array(item))
        start = self.values.offset + int(self.offsets[index]) * self.values[:1].nbytes
        return partial(_read, str(self.values.filename), item.dtype, item.shape, start, self.home)

    def kept_at(self, address: str) -> "RaggedArray":
        """The same, as a copy of an object in a store."""
        return replace(self, home=(socket.gethostname(), address))

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, the length of each item."""
        return np.diff(self.offsets)


def _read(
    path: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    start: int,
    home: tuple[str, str] | None = None,
) -> np.ndarray:
    """An array that begins at byte `start` of a file."""
    count = int(np.prod(shape))
    if home is not None and (home[0] != socket.gethostname() or not Path(path).exists()):
        from fsat_kedro.store import read_range

        part = read_range(home[1], start, start + count * dtype.itemsize)
        return np.frombuffer(part, dtype).reshape(shape)
    return np.fromfile(path, dtype, count=count, offset=start).reshape(shape)


def gather(arrays: Iterable[np.ndarray], *, spool_dir: Path | str) -> RaggedArray:
    """Collect arrays into one ragged array, in memory that does not grow with them.

    The values pass through an unnamed temporary file, so that an iterator over more data than
    fits into memory can be gathered, and a killed process leaves nothing.

    Args:
        arrays: at least one array; all of one dtype and equal in all axes but the first.
        spool_dir: an existing folder with room for all values.

    Raises:
        ValueError: no array at all, or one that differs in dtype or in a later axis.
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
