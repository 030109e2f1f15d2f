"""Which clips a data set has and what is known of them, in each published layout."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fsat_kedro.data.csv_tables import read_table, refuse, to_booleans, to_integers
from fsat_kedro.data.raw_files import (
    LINK_OUT,
    RawFile,
    RawFolder,
    is_hidden,
    key,
    open_location,
    printable,
)
from fsat_kedro.errors import InputError, UnreadableError

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
_DTYPES = {
    "fname": "string",
    "label": "string",
    "verified": "boolean",
    "usage": "string",
    "fold": "Int64",
    "location": "string",
    "reason": "string",
}


@dataclass(frozen=True)
class Listing:
    """The clips of a split.

    Attributes:
        table: a row a listed clip, in the listed order: fname; label, verified, usage, fold
            (each missing where the data does not tell); location (missing where there is
            nothing to read); reason (why there is not, "" where there is).
        unlisted: names of the files among the clips that the table does not list, sorted.
    """

    table: pd.DataFrame
    unlisted: list[str]


def read_fsdkaggle2018(raw_dir: Path | str, split: str) -> Listing:
    """The clips of a split of FSDKaggle2018, or of own data in its layout.

    Args:
        raw_dir: folder with the public release's or the challenge's files.
        split: train or test.

    Raises:
        InputError: no table or no clips, or a table that is not in order.
    """
    location, clips = _find(
        raw_dir,
        split,
        tables=_CHALLENGE_TABLES[split],
        folders=_CHALLENGE_FOLDERS[split],
        source=f"FSDKaggle2018 from {FSDKAGGLE2018_RECORD}",
    )
    required = ["fname", "label"] if split == "train" else ["fname"]
    optional = ["label", "manually_verified", "usage"]
    if location.endswith("sample_submission.csv"):
        optional = []  # Its labels are a placeholder, the same three for every clip.
    table = read_table(_content(location), location, required=required, optional=optional)
    refuse(table["fname"], table["fname"] == "", location, "a file name")
    if split == "train":
        refuse(table["label"], table["label"].isin(_NO_LABEL), location, "a label")
    if split == "test" and "usage" in table:
        # What is ignored is not scored, whatever label stands there.
        table.loc[table["usage"].str.lower() == "ignored", "label"] = _NO_LABEL[0]
    if "manually_verified" in table:
        table["verified"] = to_booleans(table["manually_verified"], location)
    return _listing(table, clips)


def read_esc50(raw_dir: Path | str, split: str) -> Listing:
    """The clips of a data set in ESC-50's layout, all of it training clips in given folds.

    Args:
        raw_dir: folder that holds `audio/` and `meta/esc50.csv`, or the archive of both.
        split: train; there is no other.

    Raises:
        InputError: no table or no clips, a table that is not in order, or another split.
    """
    if split != "train":
        raise InputError(f"data in ESC-50's layout has no {split} split")
    location, clips = _find(
        raw_dir,
        split,
        tables=("esc50.csv",),
        folders=("audio",),
        source=f"ESC-50 from {ESC50_REPOSITORY}",
    )
    required = ["filename", "fold", "category"]
    table = read_table(_content(location), location, required=required, optional=[])
    refuse(table["filename"], table["filename"] == "", location, "a file name")
    refuse(table["category"], table["category"].isin(_NO_LABEL), location, "a label")
    table["fold"] = to_integers(table["fold"], location)
    return _listing(table.rename(columns={"filename": "fname", "category": "label"}), clips)


def _find(
    raw_dir: Path | str,
    split: str,
    *,
    tables: tuple[str, ...],
    folders: tuple[str, ...],
    source: str,
) -> tuple[str, dict[str, RawFile]]:
    """Location of the table of a split, and its clips by `key`."""
    raw = RawFolder(raw_dir)
    location, clips = raw.table(tables), raw.clips(folders)
    if location is not None and clips:
        return location, clips
    absent = [f"no table ({' or '.join(tables)})"] * (location is None)
    absent += [f"no folder or zip of clips ({' or '.join(folders)})"] * (not clips)
    message = (
        f"{' and '.join(absent)} for the {split} split in {raw.folder}: "
        f"get {source}, or set raw_dir"
    )
    link = raw.link_out(folders)
    if link is not None:
        message += f"; {printable(link)} is {LINK_OUT}: move here what it leads to, or set raw_dir"
    raise InputError(message)


def _content(location: str) -> bytes:
    try:
        with open_location(location) as file:
            return file.read()
    except UnreadableError as error:
        raise InputError(f"{location} is {error}: fetch it again, or unpack it") from error


def _listing(table: pd.DataFrame, clips: dict[str, RawFile]) -> Listing:
    """A table of `read_table`, in columns of the same names, with the clips' locations."""
    table = table.reindex(columns=list(_DTYPES)).astype(_DTYPES)
    table["label"] = table["label"].mask(table["label"].isin(_NO_LABEL))
    keys = [key(name) for name in table["fname"]]
    reasons = _reasons(table, keys, clips)
    table["reason"] = reasons
    table["location"] = [
        None if reason else clips[name].location for name, reason in zip(keys, reasons, strict=True)
    ]
    unlisted = sorted(printable(clips[name].name) for name in clips.keys() - set(keys))
    return Listing(table.astype(_DTYPES).reset_index(drop=True), unlisted)


def _reasons(table: pd.DataFrame, keys: list[str], clips: dict[str, RawFile]) -> list[str]:
    """Why the clip of a row is not to be read, "" where it is; a reason a row."""
    lines: dict[str, int] = {}
    labels: dict[str, dict[str, None]] = {}
    for line, name, label in zip(table.index, keys, table["label"].fillna("None"), strict=True):
        lines.setdefault(name, line)
        labels.setdefault(name, {})[label] = None
    caseless = {name.casefold() for name in clips}

    def reason(line: int, name: str) -> str:
        if len(labels[name]) > 1:
            count = "two" if len(labels[name]) == 2 else len(labels[name])
            return f"listed with {count} labels: {', '.join(labels[name])}"
        if lines[name] != line:
            return f"listed before, in line {lines[name]}"
        if "/" in name or "\\" in name or is_hidden(name):
            return "a path or a hidden file: only what is directly in the folder is looked up"
        if name in clips:
            return clips[name].reason
        if name.casefold() in caseless:
            return "listed, but not there: upper and lower case differ"
        return "listed, but not there"

    return list(map(reason, table.index, keys))
