"""Safe unpacking of zip archives: no file may land outside of the target folder."""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from fsat_kedro.errors import InputError

_PLAIN_TYPES = (0, stat.S_IFREG, stat.S_IFDIR)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip archive, without the files that macOS adds; replace the folder if it exists.

    Returns:
        The archive's only top folder if there is one, else `folder`.

    Raises:
        InputError: the archive is damaged, has an unsafe member, or needs more disk space than is
            free. Only a damaged archive leaves anything behind.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            members = source.infolist()
            for member in members:
                _require_safe(member, archive)
            kept = [member for member in members if not _is_macos_metadata(member)]
            n_bytes = sum(member.file_size for member in kept)
            require_free_space(n_bytes, archive.parent, f"unpacking {archive.name}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            # `disable=None` hides the bar unless the output is a terminal.
            for member in tqdm(kept, f"unpack {archive.name}", unit="file", disable=None):
                source.extract(member, folder)
    # zipfile raises RuntimeError for encryption and unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"{archive} cannot be unpacked: {error}: unpack it into raw_dir with another program"
        ) from error
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def require_free_space(n_bytes: int, folder: Path, purpose: str) -> None:
    """Raise an InputError if the disk of a folder has fewer free bytes."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise InputError(
            f"{purpose} needs at least {format_size(n_bytes)}, but {folder} has "
            f"{format_size(free)} free: free some space, or set raw_dir to another disk"
        )


def format_size(n_bytes: int) -> str:
    """Return a size with a suitable unit, such as 3.60GB."""
    return tqdm.format_sizeof(n_bytes, "B")


def _require_safe(member: zipfile.ZipInfo, archive: Path) -> None:
    name = member.orig_filename  # zipfile has already changed `filename`.
    windows = PureWindowsPath(name)
    if "\\" in name or windows.drive or windows.root or ".." in PurePosixPath(name).parts:
        problem = "would land outside of its folder"
    elif stat.S_IFMT(member.external_attr >> 16) not in _PLAIN_TYPES:
        problem = "is a link or a device"
    elif "\0" in name or not PurePosixPath(name).parts:
        problem = "has no valid name"
    else:
        return
    raise InputError(
        f"{archive} is not safe to unpack: its member {name!r} {problem}; nothing was unpacked: "
        "ask the publisher for a correct archive"
    )


def _is_macos_metadata(member: zipfile.ZipInfo) -> bool:
    """Return whether a member has the name of a clip, but is not sound."""
    path = PurePosixPath(member.filename)
    return path.parts[0] == "__MACOSX" or path.name.startswith("._")
