"""Files and folders, on this machine or in an object store.

A path is a local path or the url of an object, such as `s3://bucket/run/scores.csv`. What is
written appears whole at the end or not at all: a local file is written beside its path and renamed,
and an object store puts objects whole.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timezone
from pathlib import Path
from typing import IO

import fsspec
from fsspec.core import url_to_fs


def is_url(path: str | Path) -> bool:
    """Return whether a path is the url of an object or folder in a store."""
    return "://" in str(path)


@contextmanager
def open_atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file or object for writing; it appears at `path` when the block ends without error."""
    if is_url(path):
        with fsspec.open(str(path), "wb") as file:
            yield file
        return
    with replacing(Path(path)) as partial, partial.open("wb") as file:
        yield file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a local path to write a file or folder to; it takes the place of `path` at the end.

    If writing fails, what was written is removed, and what was at `path` stays.
    """
    partial = path.with_name(f".partial.{path.name}")
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if path.is_dir():
            # A folder cannot be replaced in one go. Moved aside it is gone at once, not file by
            # file, so that what is left of it never passes for whole.
            aside = path.with_name(f".replaced.{path.name}")
            remove(aside)
            path.rename(aside)
            partial.replace(path)
            remove(aside)
        else:
            partial.replace(path)
    finally:
        remove(partial)  # Already renamed if all went well.


def exists(path: str | Path) -> bool:
    """Return whether there is a file, folder or object."""
    files, name = url_to_fs(str(path), use_listings_cache=False)
    return files.exists(name)


def modified_at(path: str | Path) -> float | None:
    """Return when a file or object was last written, in seconds since 1970; None without one."""
    files, name = url_to_fs(str(path), use_listings_cache=False)
    try:
        moment = files.modified(name)
    except FileNotFoundError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def remove(path: str | Path) -> None:
    """Remove a file, folder or object, if it exists."""
    if is_url(path):
        files, name = url_to_fs(str(path), use_listings_cache=False)
        if files.exists(name):
            files.rm(name, recursive=True)
    elif Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


@contextmanager
def probe_file(data_dir: str | None) -> Iterator[str | None]:
    """Yield a temporary file or object in `data_dir`, to prove who can write there and see it.

    Yields None where there is no `data_dir`.
    """
    if data_dir is None:
        yield None
        return
    path = f"{data_dir}/.locks/probe-{uuid.uuid4().hex}"
    with open_atomic(path):
        pass
    try:
        yield path
    finally:
        remove(path)
