"""Recognition of the layout of a raw folder, from the names of its files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fsat_kedro.data.folds import count_folds
from fsat_kedro.data.layouts.clips import SplitTable
from fsat_kedro.data.layouts.own import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    TABLE,
    find_class_splits,
    find_table_splits,
    read_folder_per_class,
    read_own_table,
)
from fsat_kedro.data.layouts.published import (
    ESC50,
    FSDKAGGLE2018,
    URBANSOUND8K,
    read_esc50,
    read_fsdkaggle2018,
    read_urbansound8k,
)
from fsat_kedro.data.raw_files import EXTERNAL_LINK, RawFolder, printable
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import TableColumns

# The files of a published data set also look like own ones in a folder per class or in a table.
_PUBLISHED = ("fsdkaggle2018", "esc50", "urbansound8k")
_OWN = ("folder_per_class", "table")


class Layout(NamedTuple):
    """A layout of raw data.

    Attributes:
        files: the files that make it, for messages.
        find_splits: returns the splits in a raw folder, none if it is not in this layout.
        read: reads a split of a raw folder.
    """

    files: str
    find_splits: Callable[[RawFolder], list[str]]
    read: Callable[[Path | str, str], SplitTable]


class RawData(NamedTuple):
    """What a raw folder contains.

    Attributes:
        dataset: name of its layout.
        splits: train, and test if there is one.
        n_folds: number of folds that the data set has of its own, 0 for none.
    """

    dataset: str
    splits: list[str]
    n_folds: int


def layouts(columns: TableColumns) -> dict[str, Layout]:
    """Return all layouts by name; `columns` are those of a table."""
    return {
        "fsdkaggle2018": Layout(
            "train.csv and audio_train/, or those of the public release",
            FSDKAGGLE2018.find_splits,
            read_fsdkaggle2018,
        ),
        "esc50": Layout("esc50.csv and audio/", ESC50.find_splits, read_esc50),
        "urbansound8k": Layout(
            "UrbanSound8K.csv and fold1/, fold2/ …", URBANSOUND8K.find_splits, read_urbansound8k
        ),
        "folder_per_class": Layout(
            "two or more folders of sound files, named like their classes",
            find_class_splits,
            read_folder_per_class,
        ),
        "table": Layout(
            f"{TABLE}, or a single CSV, with the columns "
            f"{columns.file or ' or '.join(FILE_COLUMNS)}, and "
            f"{columns.label or ' or '.join(LABEL_COLUMNS)}",
            partial(find_table_splits, columns=columns),
            partial(read_own_table, columns=columns),
        ),
    }


def recognise_layout(raw: RawFolder, columns: TableColumns) -> str:
    """Return the name of the layout of a raw folder.

    Raises:
        InputError: it is in none, or may be in several.
    """
    known, shown = layouts(columns), printable(str(raw.folder))
    for names in (_PUBLISHED, _OWN):
        found = [name for name in names if known[name].find_splits(raw)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"raw_dir {shown} may be in {len(found)} layouts: "
                f"{_list_files(known, found)}. Name one: --params dataset={found[0]}, say"
            )
    message = (
        f"raw_dir {shown} is in no known layout. Looked for "
        f"{_list_files(known, list(known))}. Arrange the files like one of these (docs/data.md), "
        f"set raw_dir, or name the layout to read what is missing, --params dataset={_OWN[0]}, "
        f"say. Or get {FSDKAGGLE2018.source}"
    )
    link = raw.find_external_link(())
    if link is not None:
        message += f". {printable(link)} is {EXTERNAL_LINK}: move its target here, or set raw_dir"
    raise InputError(message)


def inspect_raw_data(raw_dir: Path | str, dataset: str, columns: TableColumns) -> RawData:
    """Return what a raw folder contains, whose layout is named or to be recognised (auto).

    Raises:
        InputError: it cannot be recognised or read.
    """
    raw = RawFolder(raw_dir)
    name = recognise_layout(raw, columns) if dataset == "auto" else dataset
    layout = layouts(columns)[name]
    train = layout.read(raw_dir, "train").table
    return RawData(name, layout.find_splits(raw), count_folds(train["fold"]))


def _list_files(known: dict[str, Layout], names: list[str]) -> str:
    return "; ".join(f"{name} ({known[name].files})" for name in names)
