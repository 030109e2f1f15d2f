"""Fetching a published data set: the files of a Zenodo record, checked and unpacked.

While they are on their way, they lie in the hidden folder `.download` of the raw folder; what
stands in the raw folder itself is whole.
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
import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from fsat_kedro import __version__
from fsat_kedro.data.unpack import readable_size, require_space, unpack
from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)

HIDDEN = ".download"
MARKER = ".unpacked.md5"
"""In an unpacked folder: checksum and name of its archive, as `md5sum` writes them."""

_RECORD = "record.json"
_BY_HAND = "or put the files into raw_dir by hand, as README tells"

_CHUNK = 2**16
_TIMEOUT = 60  # seconds without a byte
_BACKOFF = 1.0  # seconds before another attempt, doubled each time
_ATTEMPTS = 5  # in a row that bring nothing new
_BUSY = (429, 500, 502, 503, 504)


class ReleaseFile(NamedTuple):
    """A file of a record."""

    name: str
    size: int
    """Bytes."""
    md5: str
    """32 hex digits."""
    url: str

    @property
    def is_archive(self) -> bool:
        """Whether it is to be unpacked."""
        return self.name.endswith(".zip")


def download_release(record: str, raw_dir: Path | str) -> pd.DataFrame:
    """Fetch all files of a record into the raw folder, and unpack the zip archives among them.

    What is there is left alone; a broken transfer goes on where it stopped, in this run or the
    next. An archive becomes the folder in it, or else one of its name, and is deleted; one that
    was put into the raw folder by hand is unpacked as well, and stays.

    Args:
        record: address of the record's JSON, such as https://zenodo.org/api/records/2552860.
        raw_dir: made if missing.

    Returns:
        A row a file: file, bytes, md5, url, and path, what it became in the raw folder.

    Raises:
        InputError: a file cannot be fetched, is not what the record says, would replace another,
            is not safe to unpack, or finds too little disk space.
    """
    raw_dir = Path(raw_dir)
    try:
        with _session() as session:
            files = _list_files(record, session, raw_dir)
            missing = [file for file in files if _find(file, raw_dir) is None]
            if missing:
                _remember(record, files, raw_dir)
                _bring(missing, session, raw_dir)
            _clean_up(raw_dir / HIDDEN)
    except OSError as error:
        raise InputError(
            f"the download into {raw_dir} stopped: {error}: mend that and run again, it goes on "
            "from here"
        ) from error
    logger.info("All that %s lists is in %s", record, raw_dir)
    return _table(files, raw_dir)


def _session() -> requests.Session:
    """Requests that are sent again where the server is busy, after as long as it asks for."""
    retry = Retry(
        total=3,
        connect=1,
        backoff_factor=_BACKOFF,
        status_forcelist=_BUSY,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    # Compressed on the way, bytes could not be counted.
    session.headers.update(
        {"Accept-Encoding": "identity", "User-Agent": f"fsat_kedro/{__version__}"}
    )
    return session


def _list_files(record: str, session: requests.Session, raw_dir: Path) -> list[ReleaseFile]:
    """The files of the record; those it had before, where it is out of reach and all are there."""
    try:
        return _read_record(record, session)
    except InputError as error:
        files = _remembered(record, raw_dir)
        if not files or any(_find(file, raw_dir) is None for file in files):
            raise
        logger.warning("%s. All files that it had before are there", error)
        return files


def _read_record(record: str, session: requests.Session) -> list[ReleaseFile]:
    try:
        response = session.get(record, timeout=_TIMEOUT)
        response.raise_for_status()
    except requests.RequestException as error:
        raise InputError(
            f"the record {record} cannot be read: {_reason(error)}: check the network and "
            f"download.record, {_BY_HAND}"
        ) from error
    try:
        files = [_release_file(entry, record) for entry in response.json()["files"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{record} is not the JSON of a Zenodo record: {type(error).__name__} {error}: set "
            "download.record to an address such as https://zenodo.org/api/records/2552860"
        ) from error
    if not files:
        raise InputError(f"the record {record} has no files: set download.record to another")
    return files


def _release_file(entry: dict, record: str) -> ReleaseFile:
    name, size, url = entry["key"], int(entry["size"]), urljoin(record, entry["links"]["self"])
    # A name with a folder in it could lead out of the raw folder.
    if not re.fullmatch(r"(?!\.)[^/\\:\x00-\x1f]+", name):
        raise ValueError(f"file name {name!r}")
    checksum = re.fullmatch("md5:([0-9a-f]{32})", entry["checksum"].lower())
    if checksum is None:
        raise ValueError(f"checksum {entry['checksum']!r} of {name}")
    return ReleaseFile(name, size, checksum[1], url)


def _remember(record: str, files: list[ReleaseFile], raw_dir: Path) -> None:
    (raw_dir / HIDDEN).mkdir(parents=True, exist_ok=True)
    content = {"record": record, "files": [file._asdict() for file in files]}
    (raw_dir / HIDDEN / _RECORD).write_text(json.dumps(content, indent=2) + "\n")


def _remembered(record: str, raw_dir: Path) -> list[ReleaseFile]:
    try:
        content = json.loads((raw_dir / HIDDEN / _RECORD).read_text())
        files = [ReleaseFile(**entry) for entry in content["files"]]
        return files if content["record"] == record else []
    except (OSError, KeyError, TypeError, ValueError):
        return []


def _find(file: ReleaseFile, raw_dir: Path) -> Path | None:
    """What a file became in the raw folder; None where it is not there, or not whole."""
    if file.is_archive:
        markers = raw_dir.glob(f"*/{MARKER}")
        return next((path.parent for path in markers if file.md5 in path.read_text()), None)
    path = raw_dir / file.name
    return path if path.exists() and not _difference(path, file) else None


def _difference(path: Path, file: ReleaseFile) -> str:
    """How a file differs from what the record says; empty where it does not."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes where {file.size} were expected"
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    found = digest.hexdigest()
    return "" if found == file.md5 else f"the MD5 {found} where {file.md5} was expected"


def _bring(missing: list[ReleaseFile], session: requests.Session, raw_dir: Path) -> None:
    for file in missing:
        _refuse_others(file, raw_dir)
    require_space(_least_space(missing, raw_dir), raw_dir, "the download")
    for file in missing:
        by_hand = raw_dir / file.name
        if not file.is_archive:
            _fetch(file, session, raw_dir).replace(by_hand)
        elif by_hand.exists():
            _unpack(by_hand, file, raw_dir)
        else:
            fetched = _fetch(file, session, raw_dir)
            _unpack(fetched, file, raw_dir)
            fetched.unlink()


def _refuse_others(file: ReleaseFile, raw_dir: Path) -> None:
    """Leave to the user what lies where a file should go, but did not come from the record."""
    path = raw_dir / file.name
    if path.exists() and (difference := _difference(path, file)):
        raise InputError(f"{path} has {difference}: move it away, to have it fetched")
    if file.is_archive:
        _refuse_folder(raw_dir / path.stem, file)


def _refuse_folder(folder: Path, file: ReleaseFile) -> None:
    if folder.exists():
        raise InputError(
            f"{folder} is there, but no download unpacked it from {file.name}, so nobody knows "
            "if it is whole: use it as it is, or move it away and run again"
        )


def _least_space(missing: list[ReleaseFile], raw_dir: Path) -> int:
    """Bytes: all that is still to be fetched, and beside it what is in the largest archive."""
    to_fetch = sum(file.size for file in missing)
    for file in missing:
        whole, partial = _on_the_way(file, raw_dir)
        to_fetch -= sum(map(_size, (raw_dir / file.name, whole, partial)))
    return to_fetch + max((file.size for file in missing if file.is_archive), default=0)


def _on_the_way(file: ReleaseFile, raw_dir: Path) -> tuple[Path, Path]:
    """Where a file lies when it is checked but not yet in place, and before."""
    # The checksum in the path keeps the bytes of another version apart.
    folder = raw_dir / HIDDEN / file.md5
    return folder / file.name, folder / f"{file.name}.partial"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch(file: ReleaseFile, session: requests.Session, raw_dir: Path) -> Path:
    """The file in the hidden folder, with the right size and checksum."""
    whole, partial = _on_the_way(file, raw_dir)
    if whole.exists():
        return whole
    whole.parent.mkdir(exist_ok=True)
    for _ in range(2):
        _transfer(file, partial, session)
        difference = _difference(partial, file)
        if not difference:
            return partial.replace(whole)
        partial.unlink()
        logger.warning("%s came with %s: discarded", file.name, difference)
    raise InputError(
        f"{file.name} came from {file.url} with {difference}, and was discarded: try again "
        f"later, {_BY_HAND}"
    )


def _transfer(file: ReleaseFile, partial: Path, session: requests.Session) -> None:
    """Fetch what a partial file lacks, until several attempts in a row bring nothing new."""
    partial.touch()
    most, fruitless = _size(partial), 0
    logger.info("Fetching %s: %s", file.name, readable_size(file.size - most))
    with _progress_bar(file, most) as bar:
        while _size(partial) < file.size:
            before = most
            reason = _receive(file, partial, session, bar)
            most = max(most, _size(partial))
            fruitless = 0 if most > before else fruitless + 1
            if fruitless == _ATTEMPTS:
                raise InputError(
                    f"{file.url} broke off {_ATTEMPTS} times in a row ({reason}): "
                    f"{_size(partial)} of {file.size} bytes of {file.name} are there. Run again "
                    f"to go on from there, {_BY_HAND}"
                )
            if most < file.size:
                time.sleep(_BACKOFF * 2**fruitless)


def _progress_bar(file: ReleaseFile, there: int) -> tqdm:
    # `disable=None` hides the bar where nobody watches: output to a file or a pipe.
    return tqdm(
        desc=file.name, total=file.size, initial=there, unit="B", unit_scale=True, disable=None
    )


def _receive(file: ReleaseFile, partial: Path, session: requests.Session, bar: tqdm) -> str:
    """Add to a partial file what one request brings, and return why it ended."""
    there = _size(partial)
    headers = {"Range": f"bytes={there}-"} if there else {}
    try:
        with session.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            start = _first_byte(response)
            if start != there:
                partial.write_bytes(b"")
            if start not in (0, there):
                return "other bytes came than asked for"
            with partial.open("ab") as content:
                for chunk in response.iter_content(_CHUNK):
                    content.write(chunk)
                    bar.update(content.tell() - bar.n)
                    if content.tell() > file.size:
                        return "it is too long"
    except requests.HTTPError as error:
        raise InputError(
            f"{file.name} cannot be fetched: {_reason(error)}: try again later, {_BY_HAND}"
        ) from error
    except requests.RequestException as error:
        return _reason(error)
    return "nothing more came"


def _first_byte(response: requests.Response) -> int:
    """Where in the file an answer starts: at 0 where the server takes no ranges."""
    if response.status_code != requests.codes.partial_content:
        return 0
    content_range = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(content_range[1]) if content_range else -1


def _reason(error: BaseException) -> str:
    """What is at the bottom of a chain of errors, such as 'Connection refused'."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split()) or type(error).__name__


def _unpack(archive: Path, file: ReleaseFile, raw_dir: Path) -> None:
    """Unpack an archive aside, and put its folder in place when all of it is there."""
    partial = raw_dir / HIDDEN / "unpacking"
    logger.info("Unpacking %s", file.name)
    content = unpack(archive, partial)
    folder = raw_dir / (Path(file.name).stem if content == partial else content.name)
    _refuse_folder(folder, file)
    (content / MARKER).write_text(f"{file.md5}  {file.name}\n")
    content.replace(folder)


def _clean_up(hidden: Path) -> None:
    """Remove what is left of transfers and archives; the record stays."""
    for path in hidden.glob("*"):
        if path.is_dir():
            shutil.rmtree(path)


def _table(files: list[ReleaseFile], raw_dir: Path) -> pd.DataFrame:
    table = pd.DataFrame(files, columns=["file", "bytes", "md5", "url"])
    return table.assign(path=[_find(file, raw_dir).name for file in files])
