"""Locks on what a run writes, so that no two runs write the same at once."""

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import portalocker

from fsat_kedro.errors import InputError

FOLDER = ".locks"


def lock_outputs(names: list[str], data_dir: Path) -> ExitStack:
    """Take a lock on each output; runs with nothing in common may run side by side.

    The operating system drops the locks of a process that ends, however it ends.

    Args:
        names: of the outputs.
        data_dir: an existing folder that all of them are written to.

    Returns:
        What holds the locks: close it to let them go.

    Raises:
        InputError: another run writes one of them, or the folder cannot be written to.
    """
    with ExitStack() as locks:
        try:
            folder = data_dir / FOLDER
            folder.mkdir(exist_ok=True)
            for name in sorted(names):
                _lock(locks, folder / name, data_dir)
        except PermissionError as error:
            raise InputError(f"data_dir {data_dir} cannot be written to: {error}") from error
        return locks.pop_all()


def _lock(locks: ExitStack, path: Path, data_dir: Path) -> None:
    file = locks.enter_context(path.open("a+"))
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        file.seek(0)
        raise InputError(
            f"another run writes {path.name} in {data_dir}: {file.read().strip()}. "
            "Wait for its end, or set another data_dir"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()}, {' '.join(sys.argv[1:])}, since {time.strftime('%c')}\n")
    file.flush()
