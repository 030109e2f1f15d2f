"""Locks on what a run reads and writes, and marks on what it set out to make and did not."""

import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import portalocker
from portalocker import LockFlags

from fsat_kedro.errors import InputError

LOCKS = ".locks"
UNFINISHED = ".unfinished"
_POLL_SECONDS = 0.5


def lock(written: set[str], read: set[str], data_dir: Path) -> ExitStack:
    """Have what this run writes to itself, and nobody write what it reads.

    Runs that write different things may go side by side. The operating system drops the locks of
    a process that ends, however it ends.

    Args:
        written: names of outputs.
        read: names of inputs.
        data_dir: an existing folder that all of them are in.

    Returns:
        What holds the locks: close it to let them go.

    Raises:
        InputError: another run has one of them.
        OSError: the folder cannot be written to.
    """
    folder = data_dir / LOCKS
    folder.mkdir(exist_ok=True)
    with ExitStack() as locks:
        for name in sorted(written | read):
            file = locks.enter_context((folder / name).open("a+"))
            kind = LockFlags.EXCLUSIVE if name in written else LockFlags.SHARED
            try:
                portalocker.lock(file, kind | LockFlags.NON_BLOCKING)
            except portalocker.LockException as error:
                raise InputError(_who_has(file, name, data_dir)) from error
            if name in written:
                _sign(file)
        return locks.pop_all()


@contextmanager
def hold(outputs: list[str], data_dir: Path, *, seconds: float = 60) -> Iterator[None]:
    """Have a node's outputs to this process, one of many of a run, while it makes them.

    The run has its own lock on them all. This one keeps out a process that makes the same node
    again, because another one that did so is taken for dead or belongs to a run that was killed.

    Args:
        outputs: their names.
        data_dir: an existing folder that they are in.
        seconds: to wait for another process to let go of them.

    Raises:
        InputError: another process still has them.
        OSError: the folder cannot be written to.
    """
    folder = data_dir / LOCKS
    folder.mkdir(exist_ok=True)
    deadline = time.monotonic() + seconds
    with ExitStack() as locks:
        for name in sorted(outputs):
            file = locks.enter_context((folder / f"{name}.node").open("a+"))
            while True:
                try:
                    portalocker.lock(file, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
                    break
                except portalocker.LockException as error:
                    if time.monotonic() > deadline:
                        raise InputError(_who_has(file, name, data_dir)) from error
                    time.sleep(_POLL_SECONDS)
            _sign(file)
        yield


@contextmanager
def visible_file(data_dir: str | None) -> Iterator[str | None]:
    """The path of a file in a folder, to see who else sees it; None where there is no folder."""
    if data_dir is None:
        yield None
        return
    folder = Path(data_dir) / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seen-{uuid.uuid4().hex}"
    path.touch()
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Marks:
    """What runs set out to make and did not.

    Attributes:
        data_dir: an existing folder that the outputs are in.
    """

    data_dir: Path

    def mark_unfinished(self, names: set[str]) -> None:
        """Note that a run set out to make outputs: what is there of them is of an earlier one."""
        (self.data_dir / UNFINISHED).mkdir(exist_ok=True)
        for name in names:
            (self.data_dir / UNFINISHED / name).touch()

    def mark_finished(self, name: str) -> None:
        """Note that an output is made."""
        (self.data_dir / UNFINISHED / name).unlink(missing_ok=True)

    def unfinished(self) -> set[str]:
        """Names of the outputs that runs set out to make, but did not come to."""
        folder = self.data_dir / UNFINISHED
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _sign(file: TextIO) -> None:
    file.truncate(0)
    file.write(
        f"process {os.getpid()} on {socket.gethostname()}, {' '.join(sys.argv[1:])}, "
        f"since {time.strftime('%c')}\n"
    )
    file.flush()


def _who_has(file: TextIO, name: str, data_dir: Path) -> str:
    file.seek(0)
    return (
        f"another run reads or writes {name} in {data_dir}; the last to write it was "
        f"{file.read().strip() or 'unknown'}. Wait for its end, or set another data_dir"
    )
