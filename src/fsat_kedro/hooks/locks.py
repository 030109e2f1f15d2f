"""Locks on the datasets that a run reads and writes."""

import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from portalocker import Lock, LockException, LockFlags

from fsat_kedro.errors import InputError
from fsat_kedro.files import LOCKS

_POLL_SECONDS = 0.5


def lock(written: set[str], read: set[str], data_dir: Path) -> ExitStack:
    """Lock what a run writes for itself alone, and what it reads against writers.

    Two runs may run side by side if neither writes what the other reads or writes. The operating
    system releases the locks of a process that ends, however it ends.

    Args:
        written: names of outputs.
        read: names of inputs.
        data_dir: the existing folder of all of them; for a url, the run's local `spool_dir`. An
            object store has no locks: a second run on another machine is not noticed.

    Returns:
        The locks: close the stack to release them.

    Raises:
        InputError: another run holds one of the locks.
        OSError: the folder cannot be written to.
    """
    with ExitStack() as locks:
        for name in sorted(written | read):
            kind = LockFlags.EXCLUSIVE if name in written else LockFlags.SHARED
            _lock(locks, data_dir, name, kind)
        return locks.pop_all()


def hold(outputs: list[str], data_dir: Path, *, seconds: float = 60) -> ExitStack:
    """Lock a node's outputs while this process, one of many of a run, makes them, as `lock` does.

    The run itself has locks on all outputs. These locks keep out a second process that runs the
    same node: after the first was wrongly taken for dead, or survived a run that was killed.

    Args:
        outputs: their names.
        data_dir: the existing folder that they are in.
        seconds: time to wait for another process to release them.
    """
    with ExitStack() as locks:
        for name in sorted(outputs):
            _lock(locks, data_dir, f"{name}.node", LockFlags.EXCLUSIVE, seconds)
        return locks.pop_all()


def _lock(locks: ExitStack, data_dir: Path, name: str, kind: LockFlags, seconds: float = 0) -> None:
    path = data_dir / LOCKS / name
    path.parent.mkdir(exist_ok=True)
    flags = kind | LockFlags.NON_BLOCKING
    try:
        file = locks.enter_context(Lock(path, "a+", seconds, _POLL_SECONDS, flags=flags))
    except LockException as error:
        raise InputError(
            f"another run reads or writes {name.removesuffix('.node')} in {data_dir}; the last to "
            f"write it was {path.read_text().strip() or 'unknown'}. Wait until the other run ends, "
            "or set another data_dir"
        ) from error
    if kind == LockFlags.EXCLUSIVE:
        _write_owner(file)


def _write_owner(file: IO[str]) -> None:
    file.truncate(0)
    file.write(
        f"process {os.getpid()} on {socket.gethostname()}, {' '.join(sys.argv[1:])}, "
        f"since {time.strftime('%c')}\n"
    )
    file.flush()
