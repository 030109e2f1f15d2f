"""Finding and opening the files in the raw folder, including those in zip archives.

The path of a file in an archive is `archive.zip//member`. Only files below the raw folder are
found, so nothing outside it is read.
"""

import errno
import logging
import lzma
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, BinaryIO, NamedTuple, cast

from fsat_kedro.errors import InputError, UnreadableError

logger = logging.getLogger(__name__)

EXTERNAL_LINK = "a link out of the raw folder"
_FOLDER = "a folder"
_NOT_A_FILE = "neither a file nor a link to one"

# No path of a file that was found has a double slash, whatever its folders are called.
_MEMBER_SEPARATOR = ".zip//"

_MAX_BYTES_IN_MEMORY = 64 * 2**20
# In bytes. A block of bzip2 has at least 46 bytes, and unpacks to 46 MB whatever its header claims.
_UNPACKED_AT_ONCE = 64
_DEFLATED_AT_ONCE = 2**16
_MAX_MEMBER_BYTES = 4 * 10**9
# Compressed sound never reaches this ratio; silence and zip bombs do.
_MAX_COMPRESSION_RATIO = 200

_RESOURCE_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
# Control characters, invisible formatting, bytes that are not UTF-8, and separators of lines.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# What `zipfile` raises for damaged, cut off or encrypted members and unknown compression.
_UNZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, KeyError, RuntimeError, ValueError),
)


class RawFile(NamedTuple):
    """A file below the raw folder, or in an archive there.

    Attributes:
        folder: name of the folder that contains it.
        name: its own name.
        path: its path, as described at the top of this module.
        reason: why it cannot be read; "" if it can.
        again: whether its folder was listed before, under another name.
    """

    folder: str
    name: str
    path: str
    reason: str = ""
    again: bool = False

    @property
    def zipped(self) -> bool:
        """Return whether the file is in an archive."""
        return _MEMBER_SEPARATOR in self.path


class RawFolder:
    """The files below a folder and in its zip archives, without hidden files.

    Args:
        folder: the raw folder.
        parameter: the parameter that sets it, for error messages.

    Raises:
        InputError: the folder does not exist, or an archive in it cannot be read.
    """

    def __init__(self, folder: Path | str, *, parameter: str = "raw_dir") -> None:
        self.folder = Path(folder)
        shown = f"{parameter} {printable(str(folder))}"
        if not self.folder.is_dir():
            raise InputError(f"{shown} is not a folder: create it or set {parameter}")
        # Unpacked files come first, as they may be newer than the archive. Then files in higher
        # folders come first, as deeper ones may be older copies.
        self._files = sorted(
            _walk(self.folder), key=lambda file: (file.zipped, file.path.count("/"), file.path)
        )

    def find_table(self, names: tuple[str, ...]) -> str | None:
        """Return the path of the first of these files that exists, in any folder."""
        for name in names:
            found = [file for file in self._files if file.name == name and not file.reason]
            if found:
                others = [file for file in found[1:] if _are_different(found[0], file)]
                _warn_of_duplicates("tables", [(found[0], other) for other in others])
                return found[0].path
        return None

    def find_clips(self, folders: tuple[str, ...]) -> dict[str, RawFile]:
        """Return the files directly in folders of these names, by normalized file name."""
        clips: dict[str, RawFile] = {}
        duplicates = []
        for folder in folders:
            for file in self._files:
                if file.folder == folder:
                    first = clips.setdefault(normalize_filename(file.name), file)
                    if _are_different(first, file):
                        duplicates.append((first, file))
        _warn_of_duplicates("clips", duplicates)
        return clips

    @cached_property
    def files_by_path(self) -> dict[str, RawFile]:
        """Return the files by normalized path below the folder, with `/`.

        An archive counts as a folder of its name. Its members are left out where they are unpacked
        too, into that folder or beside the archive. So are files that links lead to again.
        """
        files: dict[str, RawFile] = {}
        duplicates = []
        for file in self._files:
            if file.again or (file.name.endswith(".zip") and not file.zipped):
                continue
            paths = self._relative_paths(file.path)
            path = next((path for path in paths if path in files), paths[0])
            first = files.setdefault(path, file)
            if _are_different(first, file):
                duplicates.append((first, file))
        _warn_of_duplicates("files", duplicates)
        return files

    def _relative_paths(self, path: str) -> list[str]:
        """Return the path of a file, and where else a member of an archive may be unpacked."""
        archive, is_member, member = path.partition(_MEMBER_SEPARATOR)
        place = os.path.relpath(archive, self.folder).replace(os.sep, "/")
        paths = [place]
        if is_member:
            member = member.lstrip("/")
            parent, slash, name = place.rpartition("/")
            paths = [f"{place}/{member}", f"{parent}{slash}{member}"]
            if member.startswith(f"{name}/"):  # The usual archive of a folder.
                paths.reverse()
        return [normalize_filename(path) for path in paths]

    def list_files(self) -> list[tuple[str, str, str]]:
        """Return printable relative path, path and reason of all files, sorted.

        An archive is represented by its members. The files of a folder are listed once, whatever
        links lead to it.
        """
        files = [file for file in self._files if file.zipped or not file.name.endswith(".zip")]
        again = [file for file in files if file.again]
        if again:
            logger.warning(
                "%d files are left out because links lead to them again, the first is %s",
                len(again),
                printable(again[0].path),
            )
        return sorted(
            (printable(os.path.relpath(file.path, self.folder)), file.path, file.reason)
            for file in files
            if not file.again
        )

    def find_external_link(self, folders: tuple[str, ...]) -> str | None:
        """Return the path of a link that points out of the raw folder; these names come first.

        Links in folders of these names represent clips and do not count.
        """
        links = [file for file in self._files if file.reason == EXTERNAL_LINK]
        links = [link for link in links if link.folder not in folders]
        links.sort(key=lambda link: link.name not in folders)
        return links[0].path if links else None


def normalize_filename(name: str) -> str:
    """Return a file name in a form to compare; macOS writes accents as separate characters."""
    return unicodedata.normalize("NFC", name).strip()


def printable(name: str) -> str:
    """Return a name with escapes for what a terminal obeys or a table in UTF-8 cannot hold.

    These are control characters, invisible formatting and bytes that are not UTF-8.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in name
    )


def is_hidden(name: str) -> bool:
    """Return whether a file name is one that the system or another program uses."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def open_raw_file(path: str) -> BinaryIO:
    """Open a file, or a member of a zip archive, for reading bytes.

    Raises:
        UnreadableError: it is missing, not permitted, no regular file, damaged, encrypted or a
            zip bomb.
        OSError: out of memory, disk space or file handles.
    """
    archive, is_member, member = path.partition(_MEMBER_SEPARATOR)
    with _raising_unreadable():
        if is_member:
            return _open_member(f"{archive}.zip", member)
        return _open_file(Path(path))


def read_raw_file(path: str) -> bytes:
    """Return the content of a table, a file or a member of a zip archive.

    Raises:
        InputError: what `open_raw_file` calls unreadable.
        OSError: out of memory, disk space or file handles.
    """
    try:
        with open_raw_file(path) as file:
            return file.read()
    except UnreadableError as error:
        raise InputError(
            f"{printable(path)} is {error}: download it again, or unpack it"
        ) from error


@contextmanager
def _raising_unreadable() -> Iterator[None]:
    """Turn errors of one file, but not of the machine, into an `UnreadableError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _RESOURCE_ERRORS:
            raise
        raise UnreadableError(f"not readable: {error.strerror or error}") from error
    except _UNZIP_ERRORS as error:
        message = str(error) or type(error).__name__
        raise UnreadableError(f"not readable from its archive: {message}") from error


def _open_file(path: Path) -> BinaryIO:
    with ExitStack() as close_unless_returned:
        file = close_unless_returned.enter_context(open(path, "rb", opener=_open_at_once))
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(_NOT_A_FILE)
        if status.st_size > _MAX_BYTES_IN_MEMORY:
            close_unless_returned.pop_all()
            return file
        # Read at once, as libsndfile would treat a failing disk as the end of the file.
        return BytesIO(file.read(_MAX_BYTES_IN_MEMORY))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as one would for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _open_member(archive_path: str, member: str) -> BinaryIO:
    archive = _open_archive(archive_path, Path(archive_path).stat().st_mtime_ns)
    info = archive.getinfo(member)
    is_large = info.file_size > _MAX_BYTES_IN_MEMORY
    max_bytes = min(_MAX_MEMBER_BYTES, _MAX_COMPRESSION_RATIO * info.compress_size)
    if is_large and info.file_size > max_bytes:
        raise UnreadableError(
            f"not unpacked, as {info.compress_size} bytes would become {info.file_size}"
        )
    bounded = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    n_bytes = _DEFLATED_AT_ONCE if bounded else _UNPACKED_AT_ONCE
    with archive.open(info) as packed, ExitStack() as close_on_error:
        packed.MIN_READ_SIZE = n_bytes  # type: ignore[attr-defined] # It is a ZipExtFile.
        file = cast(BinaryIO, close_on_error.enter_context(_temporary_file(on_disk=is_large)))
        for chunk in iter(partial(packed.read, n_bytes), b""):
            file.write(chunk)
        file.seek(0)
        close_on_error.pop_all()
        return file


def _temporary_file(*, on_disk: bool) -> IO[bytes]:
    return TemporaryFile() if on_disk else BytesIO()


@lru_cache(maxsize=8)
def _open_archive(path: str, modified: int) -> zipfile.ZipFile:
    """Open an archive once per process: reading a directory of thousands of members is slow."""
    return zipfile.ZipFile(path)


def _walk(top: Path) -> Iterator[RawFile]:
    """Yield every file and archive member below a folder, following links that stay below it."""
    root = os.path.realpath(top)
    pending, links = [top], list[Path]()
    names: dict[str, set[str]] = {}  # By the real path of a folder.
    while pending or links:
        # Links come last, so that a folder has its own name when it is listed first.
        folder = pending.pop() if pending else links.pop(0)
        listed = names.setdefault(os.path.realpath(folder), set())
        # A folder counts once under each of its names, so that loops of links end.
        if folder.name in listed:
            continue
        again = bool(listed)
        listed.add(folder.name)
        for entry in _list_folder(folder):
            path = folder / entry.name
            reason = _unreadable_reason(entry, root)
            if reason == _FOLDER:
                (links if entry.is_symlink() else pending).append(path)
                continue
            yield RawFile(folder.name, entry.name, str(path), reason, again)
            if not reason and path.suffix == ".zip":
                yield from _list_members(path, again=again)


def _list_folder(folder: Path) -> list[os.DirEntry]:
    """Return the entries of a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        if error.errno in _RESOURCE_ERRORS:
            raise
        logger.warning("%s is skipped: %s", printable(str(folder)), error.strerror)
        return []


def _unreadable_reason(entry: os.DirEntry, root: str) -> str:
    """Return why an entry cannot be read as a file; "" if it can."""
    if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
        return EXTERNAL_LINK
    try:
        return _FOLDER if entry.is_dir() else "" if entry.is_file() else _NOT_A_FILE
    except OSError:  # A loop of links, or no permission.
        return _NOT_A_FILE


def _list_members(path: Path, *, again: bool) -> Iterator[RawFile]:
    """Yield the files in an archive; one at its root counts as in a folder of its name."""
    members = _read_directory(path)
    outside = [info.filename for info in members if ".." in PurePosixPath(info.filename).parts]
    if outside and not again:
        logger.warning(
            "%d files in %s are left out because their names lead out of it, the first is %s",
            len(outside),
            *(printable(name) for name in (str(path), outside[0])),
        )
    for info in members:
        member = PurePosixPath(info.filename)
        # macOS adds hidden files to archives that have the names of clips, but are not sound.
        if member.name and not any(map(is_hidden, member.parts)):
            folder = member.parent.name or path.stem
            yield RawFile(folder, member.name, f"{path}//{info.filename}", again=again)


def _read_directory(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with _raising_unreadable(), zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.filename.endswith("/")]
    except UnreadableError as error:
        raise InputError(
            f"{printable(str(path))} is not a complete zip archive, {error}: download it again or "
            "remove it"
        ) from error
    if members and all(info.flag_bits & 1 for info in members):
        raise InputError(f"{printable(str(path))} is encrypted: unpack it here, or remove it")
    return members


def _warn_of_duplicates(kind: str, pairs: list[tuple[RawFile, RawFile]]) -> None:
    if pairs:
        logger.warning(
            "%d %s are ignored because others have the same names: %s is used, not %s",
            len(pairs),
            kind,
            *(printable(file.path) for file in pairs[0]),
        )


def _are_different(first: RawFile, other: RawFile) -> bool:
    """Return whether two unpacked files of the same name are not the same file."""
    return (
        first is not other
        and not (first.zipped or other.zipped)
        and os.path.realpath(first.path) != os.path.realpath(other.path)
    )
