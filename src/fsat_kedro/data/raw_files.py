"""Which files are in the raw folder, zipped ones included, and how to open them.

A location is a path, or `archive.zip//member` for a file inside an archive. Nothing outside the
raw folder is read: only what was found below it has a location.
"""

import errno
import logging
import lzma
import os
import shutil
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

from fsat_kedro.errors import InputError, UnreadableError

logger = logging.getLogger(__name__)

LINK_OUT = "a link out of the raw folder"
_FOLDER = "a folder"
_NO_FILE = "neither a file nor a link to one"

# No path that was found has a double slash, whatever its folders are called.
_MEMBER = ".zip//"

# In bytes: larger files are not held in memory, larger members are not unpacked.
_IN_MEMORY = 64 * 2**20
_LARGEST_MEMBER = 4 * 10**9
# Packed sound keeps more than this part of its size; silence and zip bombs do not.
_LARGEST_RATIO = 200

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
# What `zipfile` raises for members that are damaged, cut off, encrypted or packed unusually.
_NOT_UNPACKED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
)


class RawFile(NamedTuple):
    """A file below the raw folder, or in an archive there.

    Attributes:
        folder: name of the folder that it lies in.
        name: its own name.
        location: see the module.
        reason: why it is not to be read, "" where it is.
    """

    folder: str
    name: str
    location: str
    reason: str = ""

    @property
    def zipped(self) -> bool:
        """Whether it lies in an archive."""
        return _MEMBER in self.location


class RawFolder:
    """The files below a folder, those in zip archives included and hidden ones left out.

    Args:
        folder: the raw folder.
        parameter: the one that names it, for errors.

    Raises:
        InputError: the folder does not exist, or an archive in it can't be read.
    """

    def __init__(self, folder: Path | str, *, parameter: str = "raw_dir") -> None:
        self.folder = Path(folder)
        shown = f"{parameter} {printable(str(folder))}"
        if not self.folder.is_dir():
            raise InputError(f"{shown} is not a folder: create it or set {parameter}")
        if printable(str(folder)) != str(folder):
            raise InputError(f"{shown} has a name that is not UTF-8: rename the folder")
        # What is unpacked comes first, as it may have been changed since; then what lies higher,
        # as what lies deeper may be an older copy.
        self._files = sorted(
            _walk(self.folder),
            key=lambda file: (file.zipped, file.location.count("/"), file.location),
        )

    def table(self, names: tuple[str, ...]) -> str | None:
        """Location of the first of these files that is there, in whatever folder."""
        for name in names:
            found = [file for file in self._files if file.name == name and not file.reason]
            if found:
                others = [file for file in found[1:] if _are_two(found[0], file)]
                _warn_of_passed_over("tables", [(found[0], other) for other in others])
                return found[0].location
        return None

    def clips(self, folders: tuple[str, ...]) -> dict[str, RawFile]:
        """All that lies directly in folders of these names, by file name as `key` has it."""
        clips: dict[str, RawFile] = {}
        passed_over = []
        for folder in folders:
            for file in self._files:
                if file.folder == folder:
                    first = clips.setdefault(key(file.name), file)
                    if _are_two(first, file):
                        passed_over.append((first, file))
        _warn_of_passed_over("clips", passed_over)
        return clips

    def files(self) -> list[tuple[str, str, str]]:
        """All files in the order of their names: path from the folder on, location, reason.

        Archives are in it as the files that they hold.
        """
        files = [
            (printable(os.path.relpath(file.location, self.folder)), file.location, file.reason)
            for file in self._files
            if file.zipped or not file.name.endswith(".zip")
        ]
        return sorted(files)

    def link_out(self, folders: tuple[str, ...]) -> str | None:
        """Location of a link out of the raw folder: one of these names, or else any other folder's.

        Links in the folders of these names stand for clips and do not count.
        """
        links = [file for file in self._files if file.reason == LINK_OUT]
        links = [link for link in links if link.folder not in folders]
        links.sort(key=lambda link: link.name not in folders)
        return links[0].location if links else None


def key(name: str) -> str:
    """A file name as names are compared: macOS writes accents as characters of their own."""
    return unicodedata.normalize("NFC", name).strip()


def printable(name: str) -> str:
    """A path or file name with escapes for bytes that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def is_hidden(name: str) -> bool:
    """Whether a name is for the system's or another program's use."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def open_location(location: str) -> BinaryIO:
    """Open a file, or a member of a zip archive, for reading bytes.

    Raises:
        UnreadableError: it is gone, not permitted, damaged, encrypted or a zip bomb.
        OSError: out of memory, disk space or file handles.
    """
    archive, is_member, member = location.partition(_MEMBER)
    with _unreadable():
        if is_member:
            return _open_member(f"{archive}.zip", member)
        return _open_file(Path(location))


@contextmanager
def _unreadable() -> Iterator[None]:
    """Turn what is wrong with a file into an `UnreadableError`, but nothing else."""
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_RESOURCES:
            raise
        raise UnreadableError(f"not readable: {error.strerror or error}") from error
    except _NOT_UNPACKED as error:
        what = str(error) or type(error).__name__
        raise UnreadableError(f"not readable from its archive: {what}") from error


def _open_file(path: Path) -> BinaryIO:
    file = path.open("rb")
    if os.fstat(file.fileno()).st_size > _IN_MEMORY:
        return file
    # Read here, as libsndfile would take a failing disk for the end of the file.
    with file:
        return BytesIO(file.read())


def _open_member(archive: str, member: str) -> BinaryIO:
    opened = _archive(archive, Path(archive).stat().st_mtime_ns)
    info = opened.getinfo(member)
    large = info.file_size > _IN_MEMORY
    if large and info.file_size > min(_LARGEST_MEMBER, _LARGEST_RATIO * info.compress_size):
        raise UnreadableError(
            f"not unpacked, as {info.compress_size} bytes would become {info.file_size}"
        )
    with opened.open(info) as packed:
        return _on_disk(packed) if large else BytesIO(packed.read())


def _on_disk(packed: BinaryIO) -> BinaryIO:
    with ExitStack() as unless_done:
        file = unless_done.enter_context(TemporaryFile())
        shutil.copyfileobj(packed, file)
        file.seek(0)
        unless_done.pop_all()
        return file


@lru_cache(maxsize=8)
def _archive(path: str, modified: int) -> zipfile.ZipFile:
    """An archive held open: its directory of thousands of members is read once a process."""
    return zipfile.ZipFile(path)


def _walk(top: Path) -> Iterator[RawFile]:
    """Every file and archive member below a folder, through links that stay below it."""
    root = os.path.realpath(top)
    pending, seen = [top], set()
    while pending:
        folder = pending.pop()
        # A folder counts once under each of its names, however the links go round.
        place = (folder.name, os.path.realpath(folder))
        if place in seen:
            continue
        seen.add(place)
        for entry in _entries(folder):
            path = folder / entry.name
            reason = _reason(entry, root)
            if reason == _FOLDER:
                pending.append(path)
                continue
            yield RawFile(folder.name, entry.name, str(path), reason)
            if not reason and path.suffix == ".zip":
                yield from _members(path)


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is directly in a folder, but for what is hidden."""
    if not _is_utf8(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        if error.errno in _OUT_OF_RESOURCES:
            raise
        logger.warning("%s is not looked into: %s", folder, error.strerror)
        return []


def _reason(entry: os.DirEntry, root: str) -> str:
    """Why an entry is not to be read as a file, "" where it is."""
    if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
        return LINK_OUT
    try:
        return _FOLDER if entry.is_dir() else "" if entry.is_file() else _NO_FILE
    except OSError:  # A loop of links, or what may not be looked at.
        return _NO_FILE


def _members(path: Path) -> Iterator[RawFile]:
    if not _is_utf8(path):
        return
    for info in _directory(path):
        member = PurePosixPath(info.filename)
        # What macOS adds to archives looks like a clip of the same name, but is not sound.
        if member.name and not any(map(is_hidden, member.parts)):
            folder = member.parent.name or path.stem
            yield RawFile(folder, member.name, f"{path}//{info.filename}")


def _directory(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with _unreadable(), zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.filename.endswith("/")]
    except UnreadableError as error:
        raise InputError(
            f"{path} is not a whole zip archive, {error}: fetch it again or take it away"
        ) from error
    if members and all(info.flag_bits & 1 for info in members):
        raise InputError(f"{path} is encrypted: unpack it here, or take it away")
    return members


def _is_utf8(path: Path) -> bool:
    """Whether a table can hold what is in a folder or archive; warns of one that is left out."""
    shown = printable(path.name)
    if shown != path.name:
        logger.warning("%s is not looked into: its name is not UTF-8", path.with_name(shown))
    return shown == path.name


def _warn_of_passed_over(what: str, pairs: list[tuple[RawFile, RawFile]]) -> None:
    if pairs:
        logger.warning(
            "%d %s are passed over, as there are others of their names: %s is used, and not %s",
            len(pairs),
            what,
            *(printable(file.location) for file in pairs[0]),
        )


def _are_two(first: RawFile, other: RawFile) -> bool:
    """Whether two unpacked files of the same name are not the same file."""
    return (
        first is not other
        and not (first.zipped or other.zipped)
        and os.path.realpath(first.location) != os.path.realpath(other.location)
    )
