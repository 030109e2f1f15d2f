"""Resumable, verified downloads: the files of a Zenodo record, or a single file.

Incomplete files are in the hidden folder `.download` of the raw folder. A file or folder moves to
the raw folder itself once it is complete.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import pandas as pd
import portalocker
import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from fsat_kedro import __version__
from fsat_kedro.data.unpack import format_size, require_free_space, unpack
from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)

DOWNLOAD_FOLDER = ".download"
MARKER = ".unpacked.md5"
"""File in an unpacked folder with checksum and name of its archive, as `md5sum` writes them."""

_RECORD = "record.json"
_REMEDY = "Or put the files into raw_dir yourself (docs/data.md)"

_CHUNK = 2**16
_TIMEOUT = 60  # Seconds without a byte.
_BACKOFF = 1.0  # Seconds before the next attempt, doubled each time.
_MAX_ATTEMPTS = 5  # In a row without a new byte.
_BUSY = (429, 500, 502, 503, 504)


class ReleaseFile(NamedTuple):
    """A file to download."""

    name: str
    size: int
    """Bytes."""
    checksum: str
    """`md5:` or `sha256:` with its hex digits; "" if it is not known."""
    url: str

    @property
    def md5(self) -> str:
        """Return the 32 hex digits of the MD5, which all files of a record have."""
        return self.checksum.removeprefix("md5:")

    @property
    def is_archive(self) -> bool:
        """Return whether the file is to be unpacked."""
        return self.name.endswith(".zip")


def download_release(record: str, raw_dir: Path | str) -> pd.DataFrame:
    """Download all files of a record into the raw folder, and unpack its zip archives.

    Existing files stay. An interrupted transfer resumes where it stopped, in this run or the next.
    An archive is unpacked to its only folder, or else to one of its name, and deleted. An archive
    that the user put into the raw folder is unpacked too, and kept.

    Args:
        record: url of the record's JSON, such as https://zenodo.org/api/records/2552860.
        raw_dir: the raw folder, created if missing.

    Returns:
        A row per file: file, bytes, md5, url, and path, the name of the result in the raw folder.

    Raises:
        InputError: a file cannot be downloaded, differs from the record, would replace another
            one, is not safe to unpack, or exceeds the free disk space.
    """
    raw_dir = Path(raw_dir)
    try:
        with _session() as session:
            files = _list_files(record, session, raw_dir)
            missing = [file for file in files if _find_complete(file, raw_dir) is None]
            if missing:
                _save_record(record, files, raw_dir)
                _get_files(missing, session, raw_dir)
            _clean_up(raw_dir / DOWNLOAD_FOLDER)
    except OSError as error:
        raise InputError(
            f"the download into {raw_dir} stopped: {error}: correct that and run again to resume"
        ) from error
    logger.info("All files of %s are in %s", record, raw_dir)
    rows = [(file.name, file.size, file.md5, file.url) for file in files]
    table = pd.DataFrame(rows, columns=["file", "bytes", "md5", "url"])
    paths = [_find_complete(file, raw_dir) for file in files]
    return table.assign(path=[path and path.name for path in paths])


def fetch_file(
    url: str, folder: Path, *, size: int | None, sha256: str | None, remedy: str
) -> Path:
    """Download a file into a folder, unless it is there, and return its path.

    An interrupted transfer resumes where it stopped, in this run or the next.

    Args:
        url: of the file, which ends with its name.
        folder: created if missing.
        size: bytes, or None if they are not known: then the server's word counts.
        sha256: 64 hex digits, or None if they are not known.
        remedy: what else the user can do, for errors.

    Raises:
        InputError: the file cannot be downloaded, or differs from its size or checksum.
    """
    path = folder / url.rpartition("/")[2]
    checksum = f"sha256:{sha256}" if sha256 else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Processes that need the same file wait for the one that downloads it.
        with (folder / f".{path.name}.lock").open("w") as lock, _session() as session:
            portalocker.lock(lock, portalocker.LockFlags.EXCLUSIVE)
            if not path.exists():
                file = ReleaseFile(
                    path.name, size or _ask_size(url, session, remedy), checksum, url
                )
                partial = folder / f".{path.name}.partial"
                _transfer_verified(file, partial, session, remedy).replace(path)
        mismatch = _describe_mismatch(path, size or path.stat().st_size, checksum)
    except OSError as error:
        raise InputError(f"{url} cannot be saved in {folder}: {error}. {remedy}") from error
    if mismatch:
        raise InputError(f"{path} has {mismatch}: remove it to download it again. {remedy}")
    return path


def _ask_size(url: str, session: requests.Session, remedy: str) -> int:
    try:
        with session.get(url, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            return int(response.headers["Content-Length"])
    except (requests.RequestException, KeyError, ValueError) as error:
        raise InputError(f"{url} cannot be downloaded: {_root_cause(error)}. {remedy}") from error


def _session() -> requests.Session:
    """Open a session that repeats a request to a busy server, after the delay that it asks for."""
    retry = Retry(
        total=3, connect=1, backoff_factor=_BACKOFF, status_forcelist=_BUSY, raise_on_status=False
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.headers["User-Agent"] = f"fsat_kedro/{__version__}"
    # Bytes could not be counted if the server compressed them.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _list_files(record: str, session: requests.Session, raw_dir: Path) -> list[ReleaseFile]:
    """Return the files of the record; offline, the saved list if all its files are complete."""
    try:
        return _read_record(record, session)
    except InputError as error:
        files = _load_record(record, raw_dir)
        if not files or any(_find_complete(file, raw_dir) is None for file in files):
            raise
        logger.warning("%s. All files of the previous download exist", error)
        return files


def _read_record(record: str, session: requests.Session) -> list[ReleaseFile]:
    try:
        response = session.get(record, timeout=_TIMEOUT)
        response.raise_for_status()
    except requests.RequestException as error:
        raise InputError(
            f"the record {record} cannot be read: {_root_cause(error)}: check the network and "
            f"download.record. {_REMEDY}"
        ) from error
    try:
        files = [_parse_entry(entry, record) for entry in response.json()["files"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{record} is not the JSON of a Zenodo record: {type(error).__name__} {error}: set "
            "download.record to a url such as https://zenodo.org/api/records/2552860"
        ) from error
    if not files:
        raise InputError(f"the record {record} has no files: set download.record to another")
    return files


def _parse_entry(entry: dict, record: str) -> ReleaseFile:
    name, size, url = entry["key"], int(entry["size"]), urljoin(record, entry["links"]["self"])
    # A name that contains a folder could point out of the raw folder.
    if not re.fullmatch(r"(?!\.)[^/\\:\x00-\x1f]+", name):
        raise ValueError(f"file name {name!r}")
    checksum = re.fullmatch("md5:([0-9a-f]{32})", entry["checksum"].lower())
    if checksum is None:
        raise ValueError(f"checksum {entry['checksum']!r} of {name}")
    return ReleaseFile(name, size, checksum[0], url)


def _save_record(record: str, files: list[ReleaseFile], raw_dir: Path) -> None:
    (raw_dir / DOWNLOAD_FOLDER).mkdir(parents=True, exist_ok=True)
    content = {"record": record, "files": [file._asdict() for file in files]}
    (raw_dir / DOWNLOAD_FOLDER / _RECORD).write_text(json.dumps(content, indent=2) + "\n")


def _load_record(record: str, raw_dir: Path) -> list[ReleaseFile]:
    try:
        content = json.loads((raw_dir / DOWNLOAD_FOLDER / _RECORD).read_text())
        files = [ReleaseFile(**entry) for entry in content["files"]]
        return files if content["record"] == record else []
    except (OSError, KeyError, TypeError, ValueError):
        return []


def _find_complete(file: ReleaseFile, raw_dir: Path) -> Path | None:
    """Return the path of a complete file, or of its unpacked folder; None if there is none."""
    if file.is_archive:
        markers = raw_dir.glob(f"*/{MARKER}")
        return next((path.parent for path in markers if file.md5 in path.read_text()), None)
    path = raw_dir / file.name
    if path.exists() and not _describe_mismatch(path, file.size, file.checksum):
        return path
    return None


def _describe_mismatch(path: Path, size: int, checksum: str) -> str:
    """Describe how a file differs from what it should be; "" if it does not."""
    n_bytes = path.stat().st_size
    if n_bytes != size:
        return f"{n_bytes} bytes instead of {size}"
    algorithm, _, expected = checksum.partition(":")
    if not expected:
        return ""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    found = digest.hexdigest()
    return "" if found == expected else f"the {algorithm.upper()} {found} instead of {expected}"


def _get_files(missing: list[ReleaseFile], session: requests.Session, raw_dir: Path) -> None:
    for file in missing:
        _require_no_conflict(file, raw_dir)
    require_free_space(_required_bytes(missing, raw_dir), raw_dir, "the download")
    for file in missing:
        target = raw_dir / file.name
        if not file.is_archive:
            _download(file, session, raw_dir).replace(target)
        elif target.exists():
            _unpack(target, file, raw_dir)
        else:
            archive = _download(file, session, raw_dir)
            _unpack(archive, file, raw_dir)
            archive.unlink()


def _require_no_conflict(file: ReleaseFile, raw_dir: Path) -> None:
    """Raise an error if the user has another file or folder where this one belongs."""
    path = raw_dir / file.name
    if path.exists() and (mismatch := _describe_mismatch(path, file.size, file.checksum)):
        raise InputError(f"{path} has {mismatch}: move it away to download it again")
    if file.is_archive:
        _require_absent(raw_dir / path.stem, file)


def _require_absent(folder: Path, file: ReleaseFile) -> None:
    if folder.exists():
        raise InputError(
            f"{folder} exists, but was not unpacked from {file.name} by a download, so it may be "
            "incomplete: use it as it is, or move it away and run again"
        )


def _required_bytes(missing: list[ReleaseFile], raw_dir: Path) -> int:
    """Return the bytes still to download, plus the size of the largest archive to unpack."""
    n_bytes = sum(file.size for file in missing)
    for file in missing:
        complete, partial = _download_paths(file, raw_dir)
        n_bytes -= sum(map(_size, (raw_dir / file.name, complete, partial)))
    return n_bytes + max((file.size for file in missing if file.is_archive), default=0)


def _download_paths(file: ReleaseFile, raw_dir: Path) -> tuple[Path, Path]:
    """Return the paths of a verified and of a partial download."""
    # The checksum in the path separates the bytes of different versions.
    folder = raw_dir / DOWNLOAD_FOLDER / file.md5
    return folder / file.name, folder / f"{file.name}.partial"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _download(file: ReleaseFile, session: requests.Session, raw_dir: Path) -> Path:
    """Download a file and verify its size and checksum; return its path."""
    complete, partial = _download_paths(file, raw_dir)
    if complete.exists():
        return complete
    complete.parent.mkdir(exist_ok=True)
    return _transfer_verified(file, partial, session, _REMEDY).replace(complete)


def _transfer_verified(
    file: ReleaseFile, partial: Path, session: requests.Session, remedy: str
) -> Path:
    """Complete a partial file, and verify its size and checksum; return its path."""
    for _ in range(2):
        _transfer(file, partial, session, remedy)
        mismatch = _describe_mismatch(partial, file.size, file.checksum)
        if not mismatch:
            return partial
        partial.unlink()
        logger.warning("%s has %s: discarded", file.name, mismatch)
    raise InputError(
        f"{file.name} from {file.url} has {mismatch} and was discarded: try again later. {remedy}"
    )


def _transfer(file: ReleaseFile, partial: Path, session: requests.Session, remedy: str) -> None:
    """Complete a partial file; give up after several attempts in a row without a new byte."""
    partial.touch()
    n_received, n_failed = _size(partial), 0
    logger.info("Downloading %s: %s", file.name, format_size(file.size - n_received))
    # `disable=None` hides the bar unless the output is a terminal.
    with tqdm(
        None, file.name, file.size, initial=n_received, unit="B", unit_scale=True, disable=None
    ) as bar:
        while _size(partial) < file.size:
            previous = n_received
            reason = _receive(file, partial, session, bar, remedy)
            n_received = max(n_received, _size(partial))
            n_failed = 0 if n_received > previous else n_failed + 1
            if n_failed == _MAX_ATTEMPTS:
                raise InputError(
                    f"{file.url} broke off {_MAX_ATTEMPTS} times in a row ({reason}) after "
                    f"{_size(partial)} of {file.size} bytes of {file.name}. Run again to resume. "
                    f"{remedy}"
                )
            if n_received < file.size:
                time.sleep(_BACKOFF * 2**n_failed)


def _receive(
    file: ReleaseFile, partial: Path, session: requests.Session, bar: tqdm, remedy: str
) -> str:
    """Append the bytes of one request to a partial file, and return why it ended."""
    size = _size(partial)
    headers = {"Range": f"bytes={size}-"} if size else {}
    try:
        with session.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            start = _first_byte(response)
            if start != size:
                partial.write_bytes(b"")
            if start not in (0, size):
                return "the server sent other bytes than requested"
            with partial.open("ab") as content:
                for chunk in response.iter_content(_CHUNK):
                    content.write(chunk)
                    bar.update(content.tell() - bar.n)
                    if content.tell() > file.size:
                        return "it is too long"
    except requests.HTTPError as error:
        raise InputError(
            f"{file.name} cannot be downloaded: {_root_cause(error)}: try again later. {remedy}"
        ) from error
    except requests.RequestException as error:
        return _root_cause(error)
    return "the response ended"


def _first_byte(response: requests.Response) -> int:
    """Return the position of a response in the file: 0 if the server ignores ranges."""
    if response.status_code != requests.codes.partial_content:
        return 0
    content_range = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(content_range[1]) if content_range else -1


def _root_cause(error: BaseException) -> str:
    """Return the message of the first error in a chain, such as 'Connection refused'."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__


def _unpack(archive: Path, file: ReleaseFile, raw_dir: Path) -> None:
    """Unpack an archive, and move its folder into place once it is complete."""
    partial = raw_dir / DOWNLOAD_FOLDER / "unpacking"
    logger.info("Unpacking %s", file.name)
    content = unpack(archive, partial)
    folder = raw_dir / (Path(file.name).stem if content == partial else content.name)
    _require_absent(folder, file)
    (content / MARKER).write_text(f"{file.md5}  {file.name}\n")
    content.replace(folder)


def _clean_up(folder: Path) -> None:
    """Remove what transfers and unpacking left behind; the record's list stays."""
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
