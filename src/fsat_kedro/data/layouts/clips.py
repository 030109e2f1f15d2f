"""Tables of clips: what is known of each clip, and where its file is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from fsat_kedro.data.raw_files import RawFile, is_hidden, normalize_filename, printable

MISSING_LABELS = ["", "None"]

_DTYPES = {
    "fname": "string",
    "label": "string",
    "verified": "boolean",
    "usage": "string",
    "fold": "Int64",
    "group": "string",
    "path": "object",  # Bytes of a path that are not UTF-8 fit into no other column.
    "reason": "string",
}


class SplitTable(NamedTuple):
    """The clips of a split.

    Attributes:
        table: a row per listed clip, in the listed order. Columns: fname; label, verified, usage,
            fold and group (missing if unknown); path (missing if the clip is rejected); reason (of
            the rejection, else ""). Clips of one group are cut from one recording.
        unlisted: sorted names of the files among the clips that the table does not list.
    """

    table: pd.DataFrame
    unlisted: list[str]


def clip_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the columns of `SplitTable`, missing where it has them not."""
    return table.reindex(columns=list(_DTYPES)).astype(_DTYPES).reset_index(drop=True)


def match_clips(
    table: pd.DataFrame, clips: Mapping[str, RawFile], keys: Sequence[str] | None = None
) -> SplitTable:
    """Add each listed clip's path, or the reason of its rejection, to a table of `read_table`.

    Args:
        table: fname, label, and what else is known.
        clips: the files.
        keys: of each listed clip's file in `clips`. By default these are the normalized file
            names, which must not be paths.
    """
    lines = table.index
    table = clip_table(table)
    table["label"] = table["label"].mask(table["label"].isin(MISSING_LABELS))
    names = keys or [normalize_filename(name) for name in table["fname"]]
    table["reason"] = _rejection_reasons(
        lines, names, table["label"].fillna("None"), clips, allow_paths=keys is not None
    )
    paths = [
        None if reason else clips[name].path
        for name, reason in zip(names, table["reason"], strict=True)
    ]
    table["path"] = pd.Series(paths, table.index, dtype=object)
    unlisted = sorted(printable(clips[name].name) for name in clips.keys() - set(names))
    return SplitTable(clip_table(table), unlisted)


def _rejection_reasons(
    lines: pd.Index,
    names: Sequence[str],
    clip_labels: pd.Series,
    clips: Mapping[str, RawFile],
    *,
    allow_paths: bool,
) -> list[str]:
    """Return the reason why the clip of each row is rejected, "" if it is not."""
    first_lines: dict[str, int] = {}
    labels: dict[str, dict[str, None]] = {}
    for line, name, label in zip(lines, names, clip_labels, strict=True):
        first_lines.setdefault(name, line)
        labels.setdefault(name, {})[label] = None
    caseless = {name.casefold() for name in clips}

    def reason(line: int, name: str) -> str:
        if len(labels[name]) > 1:
            count = "two" if len(labels[name]) == 2 else len(labels[name])
            return f"listed with {count} labels: {', '.join(labels[name])}"
        if first_lines[name] != line:
            return f"listed before, in line {first_lines[name]}"
        if not allow_paths and ("/" in name or "\\" in name or is_hidden(name)):
            return "a path or a hidden file: only files directly in the folder are read"
        if name in clips:
            return clips[name].reason
        if name.casefold() in caseless:
            return "listed, but not there: upper and lower case differ"
        return "listed, but not there"

    return list(map(reason, lines, names))
