"""Locks on what a run reads and writes, and marks on what it set out to make and did not."""

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import portalocker
from portalocker import LockFlags

from fsat_kedro.errors import InputError

LOCKS = ".locks"
UNFINISHED = ".unfinished"


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


def mark_unfinished(names: set[str], data_dir: Path) -> None:
    """Note that a run set out to make these outputs: what is there of them is of an earlier one."""
    (data_dir / UNFINISHED).mkdir(exist_ok=True)
    for name in names:
        (data_dir / UNFINISHED / name).touch()


def mark_finished(name: str, data_dir: Path) -> None:
    """Note that an output is made."""
    (data_dir / UNFINISHED / name).unlink(missing_ok=True)


def unfinished(data_dir: Path) -> set[str]:
    """Names of the outputs that runs set out to make, but did not come to."""
    folder = data_dir / UNFINISHED
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _sign(file: TextIO) -> None:
    file.truncate(0)
    file.write(f"process {os.getpid()}, {' '.join(sys.argv[1:])}, since {time.strftime('%c')}\n")
    file.flush()


def _who_has(file: TextIO, name: str, data_dir: Path) -> str:
    file.seek(0)
    return (
        f"another run reads or writes {name} in {data_dir}; the last to write it was "
        f"{file.read().strip() or 'unknown'}. Wait for its end, or set another data_dir"
    )
