"""Layouts of people's own sounds: a folder for each class, and a table of paths and labels."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fsat_kedro.data.csv_tables import (
    parse_booleans,
    parse_integers,
    read_header,
    read_table,
    require_all,
)
from fsat_kedro.data.label_corrections import TABLE as CORRECTIONS
from fsat_kedro.data.layouts.clips import MISSING_LABELS, SplitTable, clip_table, match_clips
from fsat_kedro.data.layouts.published import ESC50, FSDKAGGLE2018, URBANSOUND8K
from fsat_kedro.data.raw_files import (
    RawFile,
    RawFolder,
    normalize_filename,
    printable,
    read_raw_file,
)
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import TableColumns

TABLE = "labels.csv"
FILE_COLUMNS = ("fname", "filename", "file", "path")
LABEL_COLUMNS = ("label", "category", "class")

_SPLITS = ("train", "test")
# Files of formats that cannot be read are rejected with a reason.
_SOUNDS = {
    *(
        "wav",
        "wave",
        "flac",
        "ogg",
        "oga",
        "opus",
        "mp3",
        "aif",
        "aiff",
        "aifc",
        "au",
        "caf",
        "w64",
    ),
    *("m4a", "aac", "wma"),
}
# Folders of clips of any class: in published layouts whose table is missing, and of splits.
_NO_CLASSES = {
    *_SPLITS,
    *(
        folder.lower()
        for published in (FSDKAGGLE2018, ESC50, URBANSOUND8K)
        for split in published.splits.values()
        for folder in split.folders
    ),
}


def find_class_splits(raw: RawFolder) -> list[str]:
    """Return the splits of a raw folder with a folder per class, none if it has no two classes."""
    splits = _class_splits(raw)
    return list(splits) if len({_label(path) for path in splits["train"]}) > 1 else []


def read_folder_per_class(raw_dir: Path | str, split: str) -> SplitTable:
    """Read clips whose label is the name of the folder that holds them.

    Folders `train` and `test` above those of the classes are splits, if both are there.

    Raises:
        InputError: fewer than two folders of clips, or another split.
    """
    raw = RawFolder(raw_dir)
    shown = printable(str(raw.folder))
    if not find_class_splits(raw):
        raise InputError(
            f"{shown} has no two folders of sound files, one for each class: make them, or set "
            "raw_dir or dataset"
        )
    splits = _class_splits(raw)
    if split not in splits:
        raise InputError(f"{shown} has no {split} split: no folder {split} above those of classes")
    listed = set().union(*splits.values())
    folders = {path.rpartition("/")[0] for path in listed}
    top = os.path.commonpath([folder.rpartition("/")[0] for folder in folders])
    table = pd.DataFrame(
        [
            (
                printable(path.removeprefix(f"{top}/")),
                printable(_label(path)),
                file.path,
                file.reason,
            )
            for path, file in splits[split].items()
        ],
        columns=["fname", "label", "path", "reason"],
        dtype=object,
    )
    table.loc[table["reason"] != "", "path"] = None
    unlisted = _sounds(raw.files_by_path).keys() - listed if split == "train" else ()
    return SplitTable(clip_table(table), sorted(map(printable, unlisted)))


def find_table_splits(raw: RawFolder, columns: TableColumns) -> list[str]:
    """Return the splits of the table in a raw folder, none if there is no table of clips."""
    path = _find_table(raw)
    if path is None:
        return []
    content, source = read_raw_file(path), printable(path)
    header = read_header(content, source)
    if _find_column(header, FILE_COLUMNS, columns.file) not in header:
        return []
    if _find_column(header, LABEL_COLUMNS, columns.label) not in header:
        return []
    if "split" not in header:
        return ["train"]
    values = set(read_table(content, source, required=["split"], optional=[])["split"].str.lower())
    return [split for split in _SPLITS if split in values]


def read_own_table(raw_dir: Path | str, split: str, *, columns: TableColumns) -> SplitTable:
    """Read the clips that a table lists by paths relative to the raw folder, or by file names.

    The table is `labels.csv`, or the only CSV there. Its optional columns are split (train or
    test), verified, fold, and group (the recording that a clip is cut from).

    Raises:
        InputError: no table, no columns of files and labels, an invalid value, or another split.
    """
    raw = RawFolder(raw_dir)
    path = _find_table(raw)
    if path is None:
        raise InputError(
            f"{printable(str(raw.folder))} has neither {TABLE} nor exactly one other CSV: write "
            f"{TABLE} with columns {FILE_COLUMNS[0]} and {LABEL_COLUMNS[0]}, or set raw_dir or "
            "dataset"
        )
    table = _read_clips(path, columns)
    is_here = (table["split"] == split).to_numpy()
    if not is_here.any():
        raise InputError(f"{printable(path)} has no {split} split: no {split} in a column split")
    files = raw.files_by_path
    clips, keys = _find_files(table["fname"].tolist(), files)
    matched = match_clips(table, clips, keys)
    unlisted = sorted(printable(path) for path in _sounds(files).keys() - set(keys))
    return SplitTable(
        matched.table[is_here].reset_index(drop=True), unlisted if split == "train" else []
    )


def _class_splits(raw: RawFolder) -> dict[str, dict[str, RawFile]]:
    """Return the sound files in folders that may be classes, by split and path.

    The splits are the folders train and test above the classes, if both are there, else train.
    """
    clips = {
        path: file
        for path, file in _sounds(raw.files_by_path).items()
        if _label(path).lower() not in {*_NO_CLASSES, ""}
    }
    splits: dict[str, dict[str, RawFile]] = {split: {} for split in _SPLITS}
    for path, file in clips.items():
        above = {part.lower() for part in path.split("/")[:-2]}
        for split in above.intersection(_SPLITS):
            splits[split][path] = file
    return splits if all(splits.values()) else {"train": clips}


def _sounds(files: Mapping[str, RawFile]) -> dict[str, RawFile]:
    return {
        path: file for path, file in files.items() if path.rpartition(".")[2].lower() in _SOUNDS
    }


def _label(path: str) -> str:
    """Return the name of the folder that holds a clip, "" for the raw folder."""
    return path.rpartition("/")[0].rpartition("/")[2]


def _find_table(raw: RawFolder) -> str | None:
    """Return the path of the table of clips: labels.csv, or the only CSV."""
    path = raw.find_table((TABLE,))
    if path is not None:
        return path
    tables = [
        file.path
        for path, file in raw.files_by_path.items()
        if path.lower().endswith(".csv") and file.name != CORRECTIONS and not file.reason
    ]
    return tables[0] if len(tables) == 1 else None


def _find_column(header: list[str], names: tuple[str, ...], name: str | None) -> str:
    """Return the name of a column, by default the first of `names` that exists."""
    return name or next((name for name in names if name in header), names[0])


def _read_clips(path: str, columns: TableColumns) -> pd.DataFrame:
    """Read the table: fname, with `/` between folders, label, split, and what else is known."""
    content, source = read_raw_file(path), printable(path)
    header = read_header(content, source)
    file = _find_column(header, FILE_COLUMNS, columns.file)
    label = _find_column(header, LABEL_COLUMNS, columns.label)
    optional = ["split", "verified", "fold", "group"]
    table = read_table(content, source, required=[file, label], optional=optional)
    require_all(table[file] != "", table[file], source, "a file name")
    if "split" in table:
        values = table["split"].str.lower()
        require_all(values.isin(_SPLITS), table["split"], source, "train or test")
        table["split"] = values
    else:
        table["split"] = "train"
    train = table[table["split"] == "train"]
    require_all(~train[label].isin(MISSING_LABELS), train[label], source, "a label")
    if "verified" in table:
        known = table.loc[table["verified"] != "", "verified"]
        table["verified"] = parse_booleans(known, source)
    if "fold" in table:
        table["fold"] = parse_integers(train["fold"], source)
    if "group" in table:
        table["group"] = table["group"].replace("", None)
    table = table.rename(columns={file: "fname", label: "label"})
    table["fname"] = table["fname"].str.replace("\\", "/").str.removeprefix("./")
    return table


def _find_files(
    names: list[str], files: dict[str, RawFile]
) -> tuple[dict[str, RawFile], list[str]]:
    """Find the files of listed names: paths below the raw folder, or the ends of paths.

    Returns:
        The files by key, including one that cannot be read for each name that fits several. And
        the key of each name; that of a name without a file is not among the files.
    """
    by_end = defaultdict(list)
    for path in files:
        parts = path.split("/")
        for start in range(len(parts)):
            by_end["/".join(parts[start:])].append(path)
    found, keys = dict(files), []
    for name in map(normalize_filename, names):
        paths = [name] if name in files else by_end.get(name, [name])
        if len(paths) > 1:
            reason = f"several files have this name: {', '.join(map(printable, paths[:2]))}"
            found[name] = files[paths[0]]._replace(reason=reason)
        keys.append(paths[0] if len(paths) == 1 else name)
    return found, keys
