"""Files and folders, on this machine or in an object store.

A path is a local path or the url of an object, such as `s3://bucket/run/scores.csv`. What this
module writes appears whole at the end or not at all, whatever happens to the power: a local file
is written beside its path, kept by the disk and renamed; an object store puts objects whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timezone
from io import BytesIO
from pathlib import Path
from typing import IO

import fsspec
import portalocker
from fsspec.core import url_to_fs

from fsat_kedro.errors import InputError

LOCKS = ".locks"
"""The folder of locks and other short-lived files in `data_dir`."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_INSTALL_S3 = 'uv pip install --constraint requirements-dev.lock --editable ".[s3]"'
_ACCESS = (
    "Set credentials and endpoint in the environment or in ~/.config/fsspec, as fsspec and the "
    "store's own tools read them: see docs/cluster.md"
)


def is_url(path: str | Path) -> bool:
    """Return whether a path is the url of an object or folder in a store."""
    return "://" in str(path)


@contextmanager
def connected(path: str | Path) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
    """Yield the file system of a path, and the path's name there.

    Raises:
        InputError: in place of every error of a store; errors of the local disk stay as they are.
    """
    try:
        # Other machines change the store too: keep no listings.
        options = {"use_listings_cache": False} if is_url(path) else {"auto_mkdir": True}
        file_system, name = url_to_fs(str(path), **options)
    except (ImportError, ValueError) as error:
        protocol = str(path).partition("://")[0]
        remedy = _INSTALL_S3 if protocol == "s3" else "or use another url"
        raise InputError(f"{path} cannot be used: {error} ({remedy})") from error
    try:
        yield file_system, name
    except Exception as error:
        if not is_url(path) or isinstance(error, InputError) or is_disk_error(error):
            raise
        raise InputError(format_store_error(path, error)) from error


def format_store_error(url: str | Path, error: BaseException) -> str:
    """Return a message for an error of a store, with the remedy."""
    if isinstance(error, FileNotFoundError):
        return (
            f"{url} does not exist ({error}): create the bucket first, run the pipeline that "
            "makes the object, or set another data_dir"
        )
    if isinstance(error, PermissionError):
        return f"{url} cannot be read or written: {error}. {_ACCESS}"
    return f"{url} cannot be used: {error}. {_ACCESS}"


def is_disk_error(error: BaseException) -> bool:
    """Return whether an error met while copying from or to a store is one of the local disk."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    return error.errno in _DISK_ERRORS or error.filename is not None


@contextmanager
def open_atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file or object for writing; it appears at `path` when the block ends without error.

    The content of an object is kept in memory until then: use `replacing` for large ones.
    """
    if is_url(path):
        # Closing a file of fsspec uploads what was written, after an error too.
        content = BytesIO()
        yield content
        with connected(path) as (store, name):
            store.pipe_file(name, content.getvalue())
    else:
        with _replacing_local(Path(path)) as partial, partial.open("wb") as file:
            yield file


@contextmanager
def replacing(path: str | Path, cache_dir: str | Path = "") -> Iterator[Path]:
    """Yield a local path to write to; what is written there replaces `path` at the end.

    If writing fails, what was written is removed, and what was at `path` stays.

    Args:
        path: of a file or object; or of a local folder.
        cache_dir: for the local copy of an object, which `local_copy` then finds.
    """
    if not is_url(path):
        with _replacing_local(Path(path)) as partial:
            yield partial
        return
    local = local_path(path, cache_dir)
    with _lock(local):
        _version_file(local).unlink(missing_ok=True)
        with _replacing_local(local) as partial:
            yield partial
        with connected(path) as (store, name):
            store.put_file(str(local), name)
            _version_file(local).write_text(store.ukey(name))


def local_path(path: str | Path, cache_dir: str | Path) -> Path:
    """Return a path itself if it is local, else where this machine keeps its copy of the url."""
    if not is_url(path):
        return Path(path)
    return Path(cache_dir).joinpath(*str(path).split("://", 1))


def local_copy(path: str | Path, cache_dir: str | Path) -> Path:
    """Return a path itself if it is local, else that of a current copy of the object.

    Processes of one machine that want the same object wait for the first to fetch it. fsspec's
    `filecache` would not do: it writes into a file that other processes have mapped into memory.

    Raises:
        InputError: the object does not exist, or the store cannot be used.
    """
    local = local_path(path, cache_dir)
    if is_url(path):
        with _lock(local), connected(path) as (store, name):
            # Asked again after fetching: somebody may have replaced the object in between.
            while (version := store.ukey(name)) != _version_of_copy(local):
                _version_file(local).unlink(missing_ok=True)
                with _replacing_local(local) as partial:
                    store.get_file(name, str(partial))
                _version_file(local).write_text(version)
    return local


def read_range(path: str | Path, start: int, end: int) -> bytes:
    """Read the bytes of a file or object from `start` to before `end`."""
    if start == end:  # HTTP has no empty range: the whole object would come.
        return b""
    with connected(path) as (store, name):
        return store.cat_file(name, start=start, end=end)


def exists(path: str | Path) -> bool:
    """Return whether there is a file, folder or object."""
    with connected(path) as (store, name):
        return store.exists(name)


def modified_at(path: str | Path) -> float | None:
    """Return the time of a file, or of a folder's newest, in seconds since 1970; None without."""
    with connected(path) as (store, name):
        names = [name] if store.isfile(name) else store.find(name)
        moments = [store.modified(each) for each in names]
    utc = [each if each.tzinfo else each.replace(tzinfo=timezone.utc) for each in moments]
    return max((each.timestamp() for each in utc), default=None)


def remove(path: str | Path) -> None:
    """Remove a file, folder or object, if it exists."""
    if is_url(path):
        with connected(path) as (store, name):
            if store.exists(name):
                store.rm(name, recursive=True)
    elif Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk keep a local file, or a folder with all its files, and their names."""
    _sync_content(path)
    _sync_one(path.parent)


@contextmanager
def probe_file(data_dir: str | None) -> Iterator[str | None]:
    """Yield a new file or object in `data_dir`, to prove who can write there; None without one.

    Raises:
        InputError: the store cannot be written to.
        OSError: the folder cannot be written to.
    """
    if data_dir is None:
        yield None
        return
    probe = f"{LOCKS}/probe-{uuid.uuid4().hex}"
    with connected(data_dir) as (file_system, folder):
        file_system.pipe_file(f"{folder}/{probe}", b"")
    try:
        yield f"{data_dir}/{probe}"
    finally:
        remove(f"{data_dir}/{probe}")


@contextmanager
def _replacing_local(path: Path) -> Iterator[Path]:
    partial = path.with_name(f".partial.{path.name}")
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _sync_content(partial)
        aside = path.with_name(f".replaced.{path.name}")
        if path.is_dir():
            # A folder cannot be replaced in one go. Moved aside it is gone at once, not file by
            # file, so that what is left of it never passes for whole.
            remove(aside)
            path.rename(aside)
        partial.replace(path)
        _sync_one(path.parent)
        remove(aside)
    finally:
        remove(partial)  # Already renamed if all went well.


def _sync_content(path: Path) -> None:
    for each in (*path.rglob("*"), path):
        _sync_one(each)


def _sync_one(path: Path) -> None:
    """Have the disk keep the content of a file, or the names of the files in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # File systems that cannot do it.
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _lock(local: Path) -> Iterator[None]:
    """Keep other processes of this machine from a copy."""
    local.parent.mkdir(parents=True, exist_ok=True)
    with local.with_name(f".{local.name}.lock").open("a") as file:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE)
        yield


def _version_file(local: Path) -> Path:
    """Return the path of the file that says which version of an object a copy is."""
    return local.with_name(f".{local.name}.version")


def _version_of_copy(local: Path) -> str | None:
    file = _version_file(local)
    return file.read_text() if local.exists() and file.exists() else None
