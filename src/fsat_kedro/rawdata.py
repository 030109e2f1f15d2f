"""Where the clips and their labels are: the published layouts, unpacked or still zipped.

A location is a path, or `archive.zip::member` for a file inside an archive.
"""

import os
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from fsat_kedro.errors import InputError

MEMBER = "::"
FSDKAGGLE2018_RECORD = "https://zenodo.org/records/2552860"
ESC50_REPOSITORY = "https://github.com/karolpiczak/ESC-50"

_NO_LABEL = ["", "None"]

# Names of the public release first, the challenge's own second.
_CHALLENGE_FOLDERS = {
    "train": ("FSDKaggle2018.audio_train", "audio_train"),
    "test": ("FSDKaggle2018.audio_test", "audio_test"),
}
_CHALLENGE_TABLES = {
    "train": ("train_post_competition.csv", "train.csv"),
    "test": (
        "test_post_competition.csv",
        "test_post_competition_scoring_clips.csv",
        "sample_submission.csv",
    ),
}


class RawFolder:
    """The files below a folder, those in zip archives included.

    Args:
        folder: the raw folder.

    Raises:
        InputError: the folder does not exist.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"raw_dir {self.folder} is not a folder: create it or set raw_dir")
        self._locations: dict[tuple[str, str], str] = {}
        # What is unpacked comes first: it may have been changed since.
        files = sorted(_walk(self.folder), key=lambda file: (MEMBER in file[2], file[2]))
        for parent, name, location in files:
            self._locations.setdefault((parent, name), location)

    def table(self, names: tuple[str, ...]) -> str | None:
        """Location of the first of these files that is there, in whatever folder."""
        by_name: dict[str, str] = {}
        for (_, name), location in self._locations.items():
            by_name.setdefault(name, location)
        return next((by_name[name] for name in names if name in by_name), None)

    def clips(self, folders: tuple[str, ...]) -> dict[str, str]:
        """Locations by file name of all that lies directly in folders of these names."""
        return {
            name: location
            for folder in reversed(folders)
            for (parent, name), location in self._locations.items()
            if parent == folder
        }


def open_location(location: str) -> BinaryIO:
    """Open a file, or a member of a zip archive, for reading bytes."""
    archive, _, member = location.partition(MEMBER)
    if member:
        return BytesIO(_archive(archive).read(member))
    return Path(location).open("rb")


def read_fsdkaggle2018(raw_dir: Path | str, split: str) -> pd.DataFrame:
    """The table of a split of FSDKaggle2018, or of own data in its layout.

    Args:
        raw_dir: folder with the public release's or the challenge's files.
        split: train or test.

    Returns:
        A row a listed clip, in the listed order: fname; label, verified, usage (missing where
        the data does not tell); fold (always missing); location (missing where no such file).

    Raises:
        InputError: no table or no clips, or a table without a needed column.
    """
    raw = RawFolder(raw_dir)
    location = raw.table(_CHALLENGE_TABLES[split])
    clips = raw.clips(_CHALLENGE_FOLDERS[split])
    if location is None or not clips:
        missing = " and ".join(
            what
            for what, absent in [
                (f"no table ({' or '.join(_CHALLENGE_TABLES[split])})", location is None),
                (
                    f"no folder or zip of clips ({' or '.join(_CHALLENGE_FOLDERS[split])})",
                    not clips,
                ),
            ]
            if absent
        )
        raise InputError(
            f"{missing} for the {split} split in {raw.folder}: "
            f"get FSDKaggle2018 from {FSDKAGGLE2018_RECORD}, or set raw_dir"
        )
    table = _read_csv(location, required=["fname"] + ["label"] * (split == "train"))
    labels = table.get("label")
    if location.endswith("sample_submission.csv"):
        labels = None  # Its labels are a placeholder, the same three for every clip.
    if split == "train":
        _refuse_missing(labels, location)
    return _listing(
        fname=table["fname"],
        label=None if labels is None else labels.where(~labels.isin(_NO_LABEL)),
        verified=table.get("manually_verified"),
        usage=table.get("usage"),
        clips=clips,
    )


def read_esc50(raw_dir: Path | str, split: str) -> pd.DataFrame:
    """The table of a data set in ESC-50's layout, all of it training clips in given folds.

    Args:
        raw_dir: folder that holds `audio/` and `meta/esc50.csv`, or the archive of both.
        split: train; there is no other.

    Returns:
        As `read_fsdkaggle2018`, with fold.

    Raises:
        InputError: no table or no clips, a table without a needed column, or another split.
    """
    if split != "train":
        raise InputError(f"data in ESC-50's layout has no {split} split")
    raw = RawFolder(raw_dir)
    location = raw.table(("esc50.csv",))
    clips = raw.clips(("audio",))
    if location is None or not clips:
        raise InputError(
            f"no meta/esc50.csv or no audio/ in {raw.folder}: "
            f"get ESC-50 from {ESC50_REPOSITORY}, or set raw_dir"
        )
    table = _read_csv(location, required=["filename", "fold", "category"])
    _refuse_missing(table["category"], location)
    return _listing(
        fname=table["filename"], label=table["category"], fold=table["fold"], clips=clips
    )


def _walk(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Folder name, file name and location of every file and archive member."""
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent, name)
            yield path.parent.name, name, str(path)
            if path.suffix == ".zip":
                yield from _members(path)


def _members(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        members = _archive(str(path)).namelist()
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is not a whole zip archive: fetch it again") from error
    for member in map(Path, members):
        # What macOS adds to archives looks like a clip of the same name, but is not sound.
        if member.parts[0] != "__MACOSX" and not member.name.startswith("._"):
            parent = member.parent.name or path.stem
            yield parent, member.name, f"{path}{MEMBER}{member.as_posix()}"


@lru_cache(maxsize=8)
def _archive(path: str) -> zipfile.ZipFile:
    """An archive held open: its directory of thousands of members is read once a process."""
    return zipfile.ZipFile(path)


def _read_csv(location: str, *, required: list[str]) -> pd.DataFrame:
    """A CSV as text, missing values as empty strings."""
    with open_location(location) as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    for column in required:
        if column not in table:
            raise InputError(
                f"{location} has no column {column}; its columns are {', '.join(table)}"
            )
    return table


def _refuse_missing(labels: pd.Series, location: str) -> None:
    missing = labels.index[labels.isin(_NO_LABEL)]
    if len(missing):
        raise InputError(
            f"{location}, line {missing[0] + 2}: a training clip without a label, "
            f"{len(missing)} in all: give them one or take them out"
        )


def _listing(
    *,
    fname: pd.Series,
    clips: dict[str, str],
    label: pd.Series | None = None,
    verified: pd.Series | None = None,
    usage: pd.Series | None = None,
    fold: pd.Series | None = None,
) -> pd.DataFrame:
    """One table for every layout, with nullable columns."""

    def column(values: pd.Series | None, dtype: str) -> pd.Series:
        values = pd.Series(pd.NA, index=fname.index) if values is None else values
        return values.astype(dtype)

    return pd.DataFrame(
        {
            "fname": fname.astype("string"),
            "label": column(label, "string"),
            "verified": column(None if verified is None else verified == "1", "boolean"),
            "usage": column(usage, "string"),
            "fold": column(None if fold is None else pd.to_numeric(fold), "Int64"),
            "location": fname.map(clips).astype("string"),
        }
    )
