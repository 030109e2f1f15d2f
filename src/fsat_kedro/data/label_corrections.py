"""Corrections of training labels: the table `label_corrections.csv` in the raw folder.

The pages of the report and of `kedro app` write it (docs/labels.md); every run reads it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from fsat_kedro.data.csv_tables import read_table, require_all
from fsat_kedro.data.raw_files import RawFolder, normalize_filename, printable, read_raw_file
from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)

TABLE = "label_corrections.csv"
_COLUMNS = ["fname", "label", "note"]
DROPPED = f"dropped in {TABLE}"
"""Reason of the rejection of a clip whose corrected label is empty."""


def correct_labels(clips: pd.DataFrame, raw_dir: Path | str) -> pd.DataFrame:
    """Apply the corrections in the raw folder, if there are any, to a table of training clips.

    A corrected label counts as verified, whether it is another one or confirms that of the table.
    An empty one drops the clip.

    Args:
        clips: fname, label, verified, path and reason, as in `layouts.SplitTable`.
        raw_dir: the raw folder.

    Returns:
        The clips with two columns more: correction, which is changed, confirmed, dropped, or ""
        for none, and its note.

    Raises:
        InputError: an invalid table, a correction of a clip that is not listed, or two of one clip
            that differ.
    """
    empty = pd.Series("", clips.index, "string")
    clips = clips.assign(correction=empty, note=empty)
    path = RawFolder(raw_dir).find_table((TABLE,))
    if path is None:
        return clips
    source = printable(path)
    names = clips["fname"].map(normalize_filename)
    corrections = _read_corrections(path, source, names)
    rows = names.isin(corrections.index)
    corrected = names[rows].map(corrections["label"])
    changed = corrected != clips.loc[rows, "label"]
    clips.loc[rows, "correction"] = changed.map({True: "changed", False: "confirmed"})
    clips.loc[rows, "label"] = corrected
    clips.loc[rows, "note"] = names[rows].map(corrections["note"])
    clips.loc[rows, "verified"] = True
    dropped = rows & (clips["label"] == "").fillna(False)
    clips.loc[dropped, ["correction", "label", "path", "reason"]] = [
        "dropped",
        pd.NA,
        None,
        DROPPED,
    ]
    counts = clips["correction"].value_counts()
    logger.info(
        "%s: %s",
        source,
        ", ".join(f"{counts.get(x, 0)} labels {x}" for x in ("changed", "confirmed", "dropped")),
    )
    _warn_of_new_labels(clips, source)
    return clips


def merge_corrections(
    existing: pd.DataFrame, decided: Mapping[str, tuple[str, str]]
) -> pd.DataFrame:
    """Add corrections to a table of them; one replaces those of the same clip.

    Args:
        existing: fname, label, note.
        decided: label ("" drops the clip) and note, by file name.
    """
    names = {normalize_filename(fname) for fname in decided}
    kept = existing[~existing["fname"].map(normalize_filename).isin(names)]
    rows = [(fname, label, note) for fname, (label, note) in decided.items()]
    return pd.concat([kept, pd.DataFrame(rows, columns=_COLUMNS)], ignore_index=True)


def find_corrections(raw_dir: Path | str) -> tuple[pd.DataFrame, Path]:
    """Return the corrections in a raw folder, and the path that new ones are written to.

    The table is empty if there are none. A table in a zip archive is read; the new one, beside the
    archive, comes before it.

    Raises:
        InputError: an invalid table.
    """
    path = RawFolder(raw_dir).find_table((TABLE,))
    if path is None:
        return pd.DataFrame(columns=_COLUMNS), Path(raw_dir, TABLE)
    target = Path(path) if Path(path).is_file() else Path(raw_dir, TABLE)
    return _read_columns(read_raw_file(path), printable(path)).reset_index(drop=True), target


def format_corrections(corrections: pd.DataFrame) -> bytes:
    """Return a table of fname, label and note as CSV in UTF-8."""
    return corrections.to_csv(index=False).encode()


def _read_corrections(path: str, source: str, names: pd.Series) -> pd.DataFrame:
    """Return label and note of each corrected clip, by normalized file name."""
    content = read_raw_file(path)
    table = _read_columns(content, source)
    table["name"] = table["fname"].map(normalize_filename)
    require_all(
        table["name"].isin(names), table["fname"], source, "the file name of a training clip"
    )
    table = table.drop_duplicates(["name", "label"])
    twice = table[table["name"].duplicated(keep=False)]
    if len(twice):
        same = twice[twice["name"] == twice["name"].iloc[0]]
        lines, labels = (" and ".join(map(repr, x[:2])) for x in (same.index, same["label"]))
        raise InputError(
            f"{source}, lines {lines}: {same['fname'].iloc[0]!r} is corrected to {labels}: "
            "keep one of them"
        )
    return table.set_index("name")[["label", "note"]]


def _read_columns(content: bytes, source: str) -> pd.DataFrame:
    """Return fname, label and note; the index is the line."""
    table = read_table(content, source, required=["fname", "label"], optional=["note"])
    return table.reindex(columns=_COLUMNS, fill_value="")


def _warn_of_new_labels(clips: pd.DataFrame, source: str) -> None:
    """Warn of corrected labels that no clip has by itself, which may be mistyped."""
    is_changed = clips["correction"] == "changed"
    new = set(clips.loc[is_changed, "label"]) - set(clips.loc[~is_changed, "label"].dropna())
    if new:
        logger.warning(
            "%s: new labels, which no other clip has: %s",
            source,
            ", ".join(printable(label) for label in sorted(new)),
        )
