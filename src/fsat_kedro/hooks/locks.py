"""Locks on the datasets that a run reads and writes."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import portalocker
from portalocker import LockFlags

from fsat_kedro.errors import InputError
from fsat_kedro.files import LOCKS

_POLL_SECONDS = 0.5


def lock(written: set[str], read: set[str], data_dir: Path) -> ExitStack:
    """Lock what a run writes for itself alone, and what it reads against writers.

    Runs without common outputs may run side by side. The operating system releases the locks of a
    process that ends, however it ends.

    Args:
        written: names of outputs.
        read: names of inputs.
        data_dir: the existing folder of all of them. An object store has no locks, so only one
            run may use a url at a time; locks in its `spool_dir` find a second run on the same
            machine.

    Returns:
        The locks: close the stack to release them.

    Raises:
        InputError: another run holds one of the locks.
        OSError: the folder cannot be written to.
    """
    with ExitStack() as locks:
        for name in sorted(written | read):
            kind = LockFlags.EXCLUSIVE if name in written else LockFlags.SHARED
            locks.enter_context(_locked(data_dir, name, kind))
        return locks.pop_all()


@contextmanager
def hold(outputs: list[str], data_dir: Path, *, seconds: float = 60) -> Iterator[None]:
    """Hold locks on a node's outputs while this process, one of many of a run, makes them.

    The run itself has locks on all outputs. These locks keep out a second process that runs the
    same node: after the first was wrongly taken for dead, or survived a run that was killed.

    Args:
        outputs: their names.
        data_dir: the existing folder that they are in.
        seconds: time to wait for another process to release them.

    Raises:
        InputError: another process still holds one of the locks.
        OSError: the folder cannot be written to.
    """
    with ExitStack() as locks:
        for name in sorted(outputs):
            locks.enter_context(_locked(data_dir, f"{name}.node", LockFlags.EXCLUSIVE, seconds))
        yield


@contextmanager
def _locked(data_dir: Path, name: str, kind: LockFlags, seconds: float = 0) -> Iterator[None]:
    folder = data_dir / LOCKS
    folder.mkdir(exist_ok=True)
    deadline = time.monotonic() + seconds
    with (folder / name).open("a+") as file:
        while True:
            try:
                portalocker.lock(file, kind | LockFlags.NON_BLOCKING)
                break
            except portalocker.LockException as error:
                if time.monotonic() >= deadline:
                    name = name.removesuffix(".node")
                    raise InputError(_format_conflict(file, name, data_dir)) from error
                time.sleep(_POLL_SECONDS)
        if kind == LockFlags.EXCLUSIVE:
            _write_owner(file)
        yield


def _write_owner(file: TextIO) -> None:
    file.truncate(0)
    file.write(
        f"process {os.getpid()} on {socket.gethostname()}, {' '.join(sys.argv[1:])}, "
        f"since {time.strftime('%c')}\n"
    )
    file.flush()


def _format_conflict(file: TextIO, name: str, data_dir: Path) -> str:
    file.seek(0)
    return (
        f"another run reads or writes {name} in {data_dir}; the last to write it was "
        f"{file.read().strip() or 'unknown'}. Wait for its end, or set another data_dir"
    )
