"""Unpacking an archive from elsewhere: nothing of it may land outside of its folder."""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from fsat_kedro.errors import InputError

_PLAIN_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip archive into a new folder, without what macOS adds to archives.

    Args:
        archive: the zip archive.
        folder: made here; anything that it held before is gone.

    Returns:
        The folder that holds the content: the only one in the archive, or else `folder`.

    Raises:
        InputError: the archive is damaged, has a member that would land outside or is neither
            file nor folder, or needs more disk space than is free. Only a damaged archive leaves
            anything behind.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            members = source.infolist()
            for member in members:
                _refuse_unsafe(member, archive)
            kept = [member for member in members if not _is_of_macos(member)]
            needed = sum(member.file_size for member in kept)
            require_space(needed, archive.parent, f"unpacking {archive.name}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            # `disable=None` hides the bar where nobody watches: output to a file or a pipe.
            for member in tqdm(kept, f"unpack {archive.name}", unit="file", disable=None):
                source.extract(member, folder)
    # RuntimeError is what zipfile raises for encryption and for unknown ways of compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"{archive} cannot be unpacked: {error}: unpack it by other means into raw_dir"
        ) from error
    return _content(folder)


def require_space(needed: int, folder: Path, purpose: str) -> None:
    """Raise an InputError where a folder's disk has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{purpose} takes at least {readable_size(needed)}, but {folder} has "
            f"{readable_size(free)} free: make room, or set raw_dir to another disk"
        )


def readable_size(n: int) -> str:
    """Bytes in the unit that suits, such as 3.60GB."""
    return tqdm.format_sizeof(n, "B")


def _refuse_unsafe(member: zipfile.ZipInfo, archive: Path) -> None:
    # The name as it stands in the archive: zipfile already changed its own copy of it.
    name = member.orig_filename
    windows = PureWindowsPath(name)
    if "\\" in name or windows.drive or windows.root or ".." in PurePosixPath(name).parts:
        problem = "would land outside of its folder"
    elif stat.S_IFMT(member.external_attr >> 16) not in _PLAIN_TYPES:
        problem = "is a link or a device"
    elif "\0" in name or not PurePosixPath(name).parts:
        problem = "has no proper name"
    else:
        return
    raise InputError(
        f"{archive} is not safe to unpack: its member {name!r} {problem}; nothing of it was "
        "unpacked: ask the publisher for a proper archive"
    )


def _is_of_macos(member: zipfile.ZipInfo) -> bool:
    """Whether it looks like a clip of the same name, but is not sound."""
    path = PurePosixPath(member.filename)
    return path.parts[0] == "__MACOSX" or path.name.startswith("._")


def _content(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder
