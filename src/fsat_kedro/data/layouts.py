"""Published layouts of data sets, each read into one table of clips per split."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from fsat_kedro.data.csv_tables import parse_booleans, parse_integers, read_table, require_all
from fsat_kedro.data.raw_files import (
    EXTERNAL_LINK,
    RawFile,
    RawFolder,
    is_hidden,
    normalize_filename,
    printable,
    read_raw_file,
)
from fsat_kedro.errors import InputError

_MISSING_LABELS = ["", "None"]

# The public release's names come first, the challenge's own second.
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
    "path": "object",  # Bytes of a path that are not UTF-8 fit into no other column.
    "reason": "string",
}


class SplitTable(NamedTuple):
    """The clips of a split.

    Attributes:
        table: a row per listed clip, in the listed order. Columns: fname; label, verified, usage
            and fold (missing if unknown); path (missing if the clip is rejected); reason (of the
            rejection, else "").
        unlisted: sorted names of the files among the clips that the table does not list.
    """

    table: pd.DataFrame
    unlisted: list[str]


def read_fsdkaggle2018(raw_dir: Path | str, split: str) -> SplitTable:
    """Read a split, train or test, of FSDKaggle2018, or of own data in its layout.

    The folder contains the files of the public release or of the challenge.

    Raises:
        InputError: no table, no clips, or an invalid table.
    """
    path, clips = _find_table_and_clips(
        raw_dir,
        split,
        tables=_CHALLENGE_TABLES[split],
        folders=_CHALLENGE_FOLDERS[split],
        source="FSDKaggle2018 by `kedro run --pipelines download` or from "
        "https://zenodo.org/records/2552860",
    )
    required = ["fname", "label"] if split == "train" else ["fname"]
    optional = ["label", "manually_verified", "usage"]
    if path.endswith("sample_submission.csv"):
        optional = []  # Its labels are placeholders, the same three for every clip.
    source = printable(path)
    table = read_table(read_raw_file(path), source, required=required, optional=optional)
    require_all(table["fname"] != "", table["fname"], source, "a file name")
    if split == "train":
        require_all(~table["label"].isin(_MISSING_LABELS), table["label"], source, "a label")
    if split == "test" and "usage" in table:
        # Ignored clips are not scored, whatever their label.
        table.loc[table["usage"].str.lower() == "ignored", "label"] = _MISSING_LABELS[0]
    if "manually_verified" in table:
        table["verified"] = parse_booleans(table["manually_verified"], source)
    return _match_clips(table, clips)


def read_esc50(raw_dir: Path | str, split: str) -> SplitTable:
    """Read a data set in ESC-50's layout, which has training clips in predefined folds only.

    The folder contains `audio/` and `meta/esc50.csv`, or an archive of both.

    Raises:
        InputError: no table, no clips, an invalid table, or another split.
    """
    if split != "train":
        raise InputError(f"data in ESC-50's layout has no {split} split")
    path, clips = _find_table_and_clips(
        raw_dir,
        split,
        tables=("esc50.csv",),
        folders=("audio",),
        source="ESC-50 from https://github.com/karolpiczak/ESC-50",
    )
    required = ["filename", "fold", "category"]
    source = printable(path)
    table = read_table(read_raw_file(path), source, required=required, optional=[])
    require_all(table["filename"] != "", table["filename"], source, "a file name")
    require_all(~table["category"].isin(_MISSING_LABELS), table["category"], source, "a label")
    table["fold"] = parse_integers(table["fold"], source)
    return _match_clips(table.rename(columns={"filename": "fname", "category": "label"}), clips)


def _find_table_and_clips(
    raw_dir: Path | str,
    split: str,
    *,
    tables: tuple[str, ...],
    folders: tuple[str, ...],
    source: str,
) -> tuple[str, dict[str, RawFile]]:
    """Return the path of a split's table, and its clips by normalized file name."""
    raw = RawFolder(raw_dir)
    path, clips = raw.find_table(tables), raw.find_clips(folders)
    if path is not None and clips:
        return path, clips
    missing = [f"no table ({' or '.join(tables)})"] * (path is None)
    missing += [f"no folder or zip of clips ({' or '.join(folders)})"] * (not clips)
    message = (
        f"{' and '.join(missing)} for the {split} split in {printable(str(raw.folder))}: "
        f"get {source}, or set raw_dir"
    )
    link = raw.find_external_link(folders)
    if link is not None:
        message += f"; {printable(link)} is {EXTERNAL_LINK}: move its target here, or set raw_dir"
    raise InputError(message)


def _match_clips(table: pd.DataFrame, clips: dict[str, RawFile]) -> SplitTable:
    """Add each listed clip's path, or the reason of its rejection, to a table of `read_table`."""
    table = table.reindex(columns=list(_DTYPES)).astype(_DTYPES)
    table["label"] = table["label"].mask(table["label"].isin(_MISSING_LABELS))
    names = [normalize_filename(name) for name in table["fname"]]
    reasons = _rejection_reasons(table, names, clips)
    table["reason"] = reasons
    paths = [
        None if reason else clips[name].path for name, reason in zip(names, reasons, strict=True)
    ]
    table["path"] = pd.Series(paths, table.index, dtype=object)
    unlisted = sorted(printable(clips[name].name) for name in clips.keys() - set(names))
    return SplitTable(table.astype(_DTYPES).reset_index(drop=True), unlisted)


def _rejection_reasons(
    table: pd.DataFrame, names: list[str], clips: dict[str, RawFile]
) -> list[str]:
    """Return the reason why the clip of each row is rejected, "" if it is not."""
    lines: dict[str, int] = {}
    labels: dict[str, dict[str, None]] = {}
    for line, name, label in zip(table.index, names, table["label"].fillna("None"), strict=True):
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
            return "a path or a hidden file: only files directly in the folder are read"
        if name in clips:
            return clips[name].reason
        if name.casefold() in caseless:
            return "listed, but not there: upper and lower case differ"
        return "listed, but not there"

    return list(map(reason, table.index, names))
