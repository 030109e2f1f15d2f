"""Layouts of published data sets, known by the names of their files."""

from pathlib import Path
from typing import NamedTuple

from fsat_kedro.data.csv_tables import parse_booleans, parse_integers, read_table, require_all
from fsat_kedro.data.layouts.clips import MISSING_LABELS, SplitTable, match_clips
from fsat_kedro.data.raw_files import EXTERNAL_LINK, RawFile, RawFolder, printable, read_raw_file
from fsat_kedro.errors import InputError


class _Split(NamedTuple):
    """Names of the files of a split.

    Attributes:
        tables: names of its table, the preferred one first.
        folders: names of the folders of its clips.
    """

    tables: tuple[str, ...]
    folders: tuple[str, ...]


class Published(NamedTuple):
    """A published data set.

    Attributes:
        name: of the data set.
        source: where to get it.
        splits: names of the files of each split.
    """

    name: str
    source: str
    splits: dict[str, _Split]

    def find_splits(self, raw: RawFolder) -> list[str]:
        """Return the splits in a raw folder: none without a table and clips to train on."""
        train, *others = self.splits
        if not all(_find(raw, self.splits[train])):
            return []
        return [train, *(split for split in others if any(_find(raw, self.splits[split])))]


FSDKAGGLE2018 = Published(
    "FSDKaggle2018",
    "FSDKaggle2018 by `kedro run --pipelines download` or from https://zenodo.org/records/2552860",
    {  # The public release's names come first, the challenge's own second.
        "train": _Split(
            ("train_post_competition.csv", "train.csv"),
            ("FSDKaggle2018.audio_train", "audio_train"),
        ),
        "test": _Split(
            (
                "test_post_competition.csv",
                "test_post_competition_scoring_clips.csv",
                "sample_submission.csv",
            ),
            ("FSDKaggle2018.audio_test", "audio_test"),
        ),
    },
)
ESC50 = Published(
    "ESC-50",
    "ESC-50 from https://github.com/karolpiczak/ESC-50",
    {"train": _Split(("esc50.csv",), ("audio",))},
)
URBANSOUND8K = Published(
    "UrbanSound8K",
    "UrbanSound8K from https://zenodo.org/records/1203745",
    {"train": _Split(("UrbanSound8K.csv",), tuple(f"fold{fold}" for fold in range(1, 11)))},
)


def read_fsdkaggle2018(raw_dir: Path | str, split: str) -> SplitTable:
    """Read a split, train or test, of FSDKaggle2018, or of own data in its layout.

    The folder contains the files of the public release or of the challenge.

    Raises:
        InputError: no table, no clips, or an invalid table.
    """
    path, clips = _find_table_and_clips(raw_dir, FSDKAGGLE2018, split)
    required = ["fname", "label"] if split == "train" else ["fname"]
    optional = ["label", "manually_verified", "usage"]
    if path.endswith("sample_submission.csv"):
        optional = []  # Its labels are placeholders, the same three for every clip.
    source = printable(path)
    table = read_table(read_raw_file(path), source, required=required, optional=optional)
    require_all(table["fname"] != "", table["fname"], source, "a file name")
    if split == "train":
        require_all(~table["label"].isin(MISSING_LABELS), table["label"], source, "a label")
    if split == "test" and "usage" in table:
        # Ignored clips are not scored, whatever their label.
        table.loc[table["usage"].str.lower() == "ignored", "label"] = MISSING_LABELS[0]
    if "manually_verified" in table:
        table["verified"] = parse_booleans(table["manually_verified"], source)
    return match_clips(table, clips)


def read_esc50(raw_dir: Path | str, split: str) -> SplitTable:
    """Read a data set in ESC-50's layout, which has training clips in predefined folds only.

    The folder contains `audio/` and `meta/esc50.csv`, or an archive of both.

    Raises:
        InputError: no table, no clips, an invalid table, or another split.
    """
    columns = {"filename": "fname", "fold": "fold", "category": "label"}
    return _read_folds(raw_dir, ESC50, split, columns)


def read_urbansound8k(raw_dir: Path | str, split: str) -> SplitTable:
    """Read a data set in UrbanSound8K's layout: training clips in predefined folds.

    The folder contains `audio/fold1/` and so on, and `metadata/UrbanSound8K.csv`, or an archive of
    both. Clips of one recording (`fsID`) are a group.

    Raises:
        InputError: no table, no clips, an invalid table, or another split.
    """
    columns = {"slice_file_name": "fname", "fold": "fold", "class": "label", "fsID": "group"}
    return _read_folds(raw_dir, URBANSOUND8K, split, columns)


def _read_folds(
    raw_dir: Path | str, published: Published, split: str, columns: dict[str, str]
) -> SplitTable:
    """Read a data set that has folds and no test split; `columns` are those of its table."""
    path, clips = _find_table_and_clips(raw_dir, published, "train")
    if split != "train":
        raise InputError(f"data in {published.name}'s layout has no {split} split")
    source = printable(path)
    table = read_table(read_raw_file(path), source, required=list(columns), optional=[])
    for column, name in columns.items():
        if name == "fname":
            require_all(table[column] != "", table[column], source, "a file name")
        if name == "label":
            require_all(~table[column].isin(MISSING_LABELS), table[column], source, "a label")
    table["fold"] = parse_integers(table["fold"], source)
    return match_clips(table.rename(columns=columns), clips)


def _find(raw: RawFolder, names: _Split) -> tuple[str | None, dict[str, RawFile]]:
    return raw.find_table(names.tables), raw.find_clips(names.folders)


def _find_table_and_clips(
    raw_dir: Path | str, published: Published, split: str
) -> tuple[str, dict[str, RawFile]]:
    """Return the path of a split's table, and its clips by normalized file name."""
    raw = RawFolder(raw_dir)
    tables, folders = published.splits[split]
    path, clips = _find(raw, published.splits[split])
    if path is not None and clips:
        return path, clips
    missing = [f"no table ({' or '.join(tables)})"] * (path is None)
    missing += [f"no folder or zip of clips ({' or '.join(folders)})"] * (not clips)
    message = (
        f"{' and '.join(missing)} for the {split} split in {printable(str(raw.folder))}: "
        f"get {published.source}, or set raw_dir"
    )
    link = raw.find_external_link(folders)
    if link is not None:
        message += f"; {printable(link)} is {EXTERNAL_LINK}: move its target here, or set raw_dir"
    raise InputError(message)
