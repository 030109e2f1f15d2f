"""Outputs in an object store, at an fsspec address such as `s3://bucket/prefix`, and their copies.

What is written is written to a folder of this machine as always, and then sent to the store; what
is read is fetched to that folder first, if it is not there as it is in the store. The store
alone decides what there is. An object is written whole or not at all; of an output of several files
the last one to be sent makes it whole.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timezone
from pathlib import Path

import fsspec
import portalocker
from fsspec.core import url_to_fs

from fsat_kedro.errors import InputError
from fsat_kedro.files import remove, replacing
from fsat_kedro.hooks.locks import LOCKS, UNFINISHED

CLAIMS = ".claims"
_VERSIONS = ".versions"
_CLAIM_SECONDS = 90
# By which a change is noticed; no store has them all.
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "created")

_ACCESS = (
    "Credentials and endpoint are set as fsspec and the store's own tools have it, in the "
    "environment or in ~/.config/fsspec: see docs/cluster.md"
)


def is_address(place: str) -> bool:
    """Whether a `data_dir` is an address of a store, not a folder."""
    return "://" in place


def folder_of(address: str, cache_dir: Path) -> Path:
    """The folder in which this machine keeps copies of what is at an address."""
    return cache_dir.joinpath(*address.rstrip("/").split("://", 1))


def is_there(place: str) -> bool:
    """Whether there is a file, by path or by address."""
    file_system, path = _connect(place)
    with _readable(place):
        return file_system.exists(path)


def read_range(address: str, start: int, end: int) -> bytes:
    """The bytes of an object from `start` to before `end`."""
    if start == end:  # HTTP knows no empty range: the whole object would come.
        return b""
    file_system, path = _connect(address)
    with _readable(address):
        return file_system.cat_file(path, start=start, end=end)


@dataclass(frozen=True)
class Store:
    """A place in an object store, and the folder for copies of what is there.

    Outputs are named by their paths in that folder. Of an output that is a folder itself, `parts`
    are the names of its files, in the order in which they are sent; of a file it is empty.

    Attributes:
        address: without a slash at the end.
        folder: need not be there; the same on every machine, which has its own.
    """

    address: str
    folder: Path

    def has(self, path: Path, parts: Sequence[str] = ()) -> bool:
        """Whether the store has an output, whole."""
        return self._version(path, parts) is not None

    def saved_at(self, path: Path, parts: Sequence[str] = ()) -> float | None:
        """When the output in the store was written, in seconds since 1970; None without one."""
        with _readable(self.address):
            try:
                moment = self._files.modified(self._key(path, *parts[-1:]))
            except FileNotFoundError:
                return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()

    def fetch(self, path: Path, parts: Sequence[str] = ()) -> bool:
        """See to it that an output is in the folder as it is in the store.

        Processes of this machine that want the same wait for the first to fetch it.

        Returns:
            Whether there is one. A copy of what the store does not have is removed.
        """
        with self._alone_with(path):
            # Asked again after fetching: it may have been replaced meanwhile.
            while (version := self._version(path, parts)) != self._version_of_copy(path):
                self.forget(path)
                if version is not None:
                    with replacing(path) as partial, _readable(self.address):
                        self._get(path, partial, parts)
                    self._note(path, version)
        if version is None:
            remove(path)
        return version is not None

    def send(self, path: Path, parts: Sequence[str] = ()) -> None:
        """Have the store hold an output as it is in the folder."""
        with self._alone_with(path):
            self.forget(path)
            with _readable(self.address):
                if parts:
                    self._remove(path, parts)
                for part in parts or [""]:
                    self._files.put_file(str(path / part), self._key(path, part))
            self._note(path, self._version(path, parts))

    def remove(self, path: Path, parts: Sequence[str] = ()) -> None:
        """Remove an output, here and there."""
        with self._alone_with(path):
            self.forget(path)
            with _readable(self.address):
                self._remove(path, parts)
            remove(path)

    def forget(self, path: Path) -> None:
        """Take what is in the folder for no copy any more, because it will be written to."""
        self._noted(path).unlink(missing_ok=True)

    def address_of(self, path: Path, *parts: str) -> str:
        """Where an output, or a file of it, is in the store."""
        return "/".join([self.address, *path.relative_to(self.folder).parts, *filter(None, parts)])

    @contextmanager
    def visible_file(self) -> Iterator[str]:
        """The address of an object that is there meanwhile, to see who can read and write.

        Raises:
            InputError: this process cannot.
        """
        path = self.folder / LOCKS / f"seen-{uuid.uuid4().hex}"
        with _readable(self.address):
            self._files.pipe_file(self._key(path), b"seen")
        try:
            yield self.address_of(path)
        finally:
            with _readable(self.address):
                self._files.rm_file(self._key(path))

    @contextmanager
    def claim(self, written: set[str], read: set[str]) -> Iterator[None]:
        """As `locks.lock`, for runs of all machines.

        A store has no locks. A run puts an object there that tells what it writes and reads, and
        puts it anew as long as it lives; one that has not been put for a while is of a run that
        was killed. Runs that share the folder of copies are told apart by its locks.

        Args:
            written: names of outputs.
            read: names of inputs.

        Raises:
            InputError: a run of another machine has one of them; or this process cannot write.
        """
        claims = self.folder / CLAIMS
        mine = self._key(claims / f"{uuid.uuid4().hex}.json")
        host = socket.gethostname()
        told = {
            "written": sorted(written),
            "read": sorted(read),
            "who": f"process {os.getpid()} on {host}, {' '.join(sys.argv[1:])}",
            "copies": f"{self.folder} on {host}",
        }
        over = threading.Event()

        def put() -> None:
            self._files.pipe_file(mine, json.dumps(told).encode())

        def go_on_putting() -> None:
            while not over.wait(_CLAIM_SECONDS / 3):
                with suppress(Exception):
                    put()

        with _readable(self.address):
            # Before looking: of two that begin at once, both see the other.
            put()
        thread = threading.Thread(target=go_on_putting, daemon=True)
        thread.start()
        try:
            with _readable(self.address):
                self._refuse_claimed(claims, mine, told)
            yield
        finally:
            over.set()
            thread.join(timeout=10)
            with suppress(Exception):
                self._files.rm_file(mine)

    def _refuse_claimed(self, claims: Path, mine: str, told: dict) -> None:
        now = self._files.modified(mine)  # By the store's clock, as all the others.
        for key in self._files.find(self._key(claims)):
            try:
                age = now - self._files.modified(key)
                other = json.loads(self._files.cat_file(key))
            except FileNotFoundError:  # It has just ended.
                continue
            if other["copies"] == told["copies"]:
                continue
            taken = set(told["written"]) & {*other["written"], *other["read"]}
            taken |= set(told["read"]) & set(other["written"])
            if taken and age.total_seconds() < _CLAIM_SECONDS:
                raise InputError(
                    f"another run reads or writes {min(taken)} in {self.address}: {other['who']}. "
                    f"Wait for its end (if it was killed, {_CLAIM_SECONDS} s), or set another "
                    "data_dir"
                )

    def mark_unfinished(self, names: set[str]) -> None:
        """As `locks.Marks.mark_unfinished`, for runs of all machines."""
        if names:
            marks = {self._key(self.folder / UNFINISHED / name): b"unfinished" for name in names}
            with _readable(self.address):
                self._files.pipe(marks)

    def mark_finished(self, name: str) -> None:
        """As `locks.Marks.mark_finished`."""
        with _readable(self.address):
            self._remove(self.folder / UNFINISHED / name, ())

    def unfinished(self) -> set[str]:
        """As `locks.Marks.unfinished`."""
        with _readable(self.address):
            try:
                keys = self._files.find(self._key(self.folder / UNFINISHED))
            except FileNotFoundError:
                return set()
        return {key.rpartition("/")[2] for key in keys}

    @property
    def _files(self) -> fsspec.AbstractFileSystem:
        return _connect(self.address)[0]

    def _key(self, path: Path, *parts: str) -> str:
        return self._files._strip_protocol(self.address_of(path, *parts))

    def _version(self, path: Path, parts: Sequence[str]) -> list | None:
        """What tells an output from an earlier one; None where there is none that is whole."""
        version = []
        with _readable(self.address):
            # The last first, which is removed first and sent last.
            for part in reversed(parts or [""]):
                try:
                    info = self._files.info(self._key(path, part))
                except FileNotFoundError:
                    return None
                if info["type"] != "file":
                    return None
                stamps = [str(info[stamp]) for stamp in _STAMPS if stamp in info]
                version.append([part, info["size"], *stamps])
        return version

    def _get(self, path: Path, target: Path, parts: Sequence[str]) -> None:
        if parts:
            target.mkdir()
        for part in parts or [""]:
            self._files.get_file(self._key(path, part), str(target / part))

    def _remove(self, path: Path, parts: Sequence[str]) -> None:
        for part in reversed(parts or [""]):
            try:
                self._files.rm_file(self._key(path, part))
            except FileNotFoundError:
                continue

    @contextmanager
    def _alone_with(self, path: Path) -> Iterator[None]:
        """Keep other processes of this machine from the copy."""
        name = "-".join(path.relative_to(self.folder).parts)
        file = self.folder / LOCKS / f"{name}.copy"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as locked:
            portalocker.lock(locked, portalocker.LockFlags.EXCLUSIVE)
            yield

    def _noted(self, path: Path) -> Path:
        return (
            self.folder / _VERSIONS / path.relative_to(self.folder).with_name(f"{path.name}.json")
        )

    def _note(self, path: Path, version: list | None) -> None:
        noted = self._noted(path)
        with replacing(noted) as partial:
            partial.write_text(json.dumps(version))

    def _version_of_copy(self, path: Path) -> list | None:
        noted = self._noted(path)
        return json.loads(noted.read_text()) if noted.exists() and path.exists() else None


def _connect(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an address, and the path there.

    Raises:
        InputError: nobody knows the protocol, or its package is not installed.
    """
    try:
        # What is in a store changes by other machines too: no listing is kept.
        return url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        protocol = address.partition("://")[0]
        remedy = 'pip install "s3fs>=2024.5"' if protocol == "s3" else "or use another address"
        raise InputError(f"{address} cannot be used: {error} ({remedy})") from error


@contextmanager
def _readable(address: str) -> Iterator[None]:
    """Tell what a store refuses, and what may be done about it.

    Raises:
        InputError: in place of all but errors of this machine's disk.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or _of_disk(error):
            raise
        if isinstance(error, FileNotFoundError):
            problem = f"is not there ({error}): make the bucket first, or name another"
        elif isinstance(error, PermissionError):
            problem = f"may not be read or written: {error}. {_ACCESS}"
        else:
            problem = f"does not answer: {error}. {_ACCESS}"
        raise InputError(f"{address} {problem}") from error


def _of_disk(error: Exception) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    return isinstance(error, OSError) and (error.filename is not None or error.errno in full)
