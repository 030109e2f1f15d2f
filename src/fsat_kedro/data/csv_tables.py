"""CSV tables as people save them: which text stands in which line of which column."""

import codecs
import csv
import logging
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO

import pandas as pd

from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)

_TRUTH = {
    **dict.fromkeys(["1", "1.0", "true", "yes"], True),
    **dict.fromkeys(["0", "0.0", "false", "no"], False),
}
_WHOLE_NUMBER = r"[+-]?[0-9]{1,9}(\.0+)?"


def read_table(
    content: bytes, source: str, *, required: list[str], optional: list[str]
) -> pd.DataFrame:
    """The text of these columns, without the spaces around it.

    Args:
        content: a CSV in UTF-8, in UTF-16 with a byte order mark, or else in Windows-1252.
        source: what messages call the table.
        required: columns that have to be there.
        optional: columns that are read where they are there.

    Returns:
        A row a record; the index is the line that it begins in, as an editor counts.

    Raises:
        InputError: no text, no rows, quotes that do not match, a missing column, one that is
            there twice, or more values than columns.
    """
    records = list(_records(_decode(content, source), source))
    if not records:
        raise InputError(f"{source} is empty: fetch it again")
    (header_line, header), *rows = records
    for column in required:
        if column not in header:
            raise InputError(
                f"{source}, line {header_line}: no column {column}; its columns are "
                f"{', '.join(header)}: "
                "rename one, and separate columns with commas"
            )
    columns = [column for column in dict.fromkeys(required + optional) if column in header]
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{source} has {header.count(column)} columns {column}: leave one")
    if not rows:
        raise InputError(f"{source} has no rows below its header: fetch it again, or add some")
    too_long = [line for line, row in rows if any(row[len(header) :])]
    if too_long:
        raise InputError(
            f"{source}, line {too_long[0]}, column {len(header) + 1}: a value beyond the "
            f"{len(header)} columns of the header, {len(too_long)} in all: "
            "put values with commas into quotes"
        )
    return pd.DataFrame(
        [_select(row, [header.index(column) for column in columns]) for _, row in rows],
        index=[line for line, _ in rows],
        columns=columns,
    )


def refuse(values: pd.Series, wrong: pd.Series, source: str, wanted: str) -> None:
    """Raise one error for all the values of a column that are wrong.

    Args:
        values: a column of `read_table`.
        wrong: booleans, as many.
        source: what messages call the table.
        wanted: what the values should have been.

    Raises:
        InputError: any is wrong.
    """
    if wrong.any():
        first = values[wrong].iloc[:1]
        raise InputError(
            f"{source}, line {first.index[0]}, column {values.name}: {first.iloc[0]!r} is not "
            f"{wanted}, {wrong.sum()} in all: correct such lines or take them out"
        )


def to_booleans(values: pd.Series, source: str) -> pd.Series:
    """A column of yes and no, true and false or 1 and 0 as booleans.

    Raises:
        InputError: any other value.
    """
    truth = values.str.lower().map(_TRUTH)
    refuse(values, truth.isna(), source, "1 or 0")
    return truth.astype("boolean")


def to_integers(values: pd.Series, source: str) -> pd.Series:
    """A column of whole numbers as such.

    Raises:
        InputError: any other value.
    """
    refuse(values, ~values.str.fullmatch(_WHOLE_NUMBER), source, "a whole number")
    return values.astype(float).astype("Int64")


def _select(row: list[str], positions: list[int]) -> list[str]:
    """Values at these positions; what a short row lacks is empty."""
    return [row[position] if position < len(row) else "" for position in positions]


def _decode(content: bytes, source: str) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ["utf-16"] if utf16 else ["utf-8-sig", "cp1252"]:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if "\0" in text:
                break
            if encoding == "cp1252":
                logger.warning("%s is not in UTF-8: read as Windows-1252", source)
            return text
    raise InputError(f"{source} is not text in UTF-8: fetch it again, or save it in UTF-8")


def _records(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """First line and values of every record with anything in it."""
    # With `newline=""` the line ends of Unix, Windows and old Macs are all left to the reader.
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            values = [value.strip() for value in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{source}, line {line}: quotes that do not match ({error}): "
                'close them, and double those within a value ("")'
            ) from error
        if any(values):
            yield line, values
