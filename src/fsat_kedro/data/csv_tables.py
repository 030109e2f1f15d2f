"""Reading of CSV tables in the many ways that people save them, with the line of each value."""

import codecs
import csv
import logging
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO

import pandas as pd

from fsat_kedro.data.raw_files import printable
from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)

_BOOLEANS = {
    **dict.fromkeys(["1", "1.0", "true", "yes"], True),
    **dict.fromkeys(["0", "0.0", "false", "no"], False),
}
_INTEGER = r"[+-]?[0-9]{1,9}(\.0+)?"


def read_table(
    content: bytes, source: str, *, required: list[str], optional: list[str]
) -> pd.DataFrame:
    """Read columns of a CSV as text, without surrounding spaces.

    Args:
        content: a CSV in UTF-8, in UTF-16 with a byte order mark, or else in Windows-1252.
        source: name of the table in messages.
        required: columns that must exist.
        optional: columns to read if they exist.

    Returns:
        A row per record. The index is the line in which the record begins, counted from 1.

    Raises:
        InputError: no text, no rows, unmatched quotes, a missing or repeated column, or more
            values than columns.
    """
    records = list(_read_records(_decode_text(content, source), source))
    if not records:
        raise InputError(f"{source} is empty: download it again")
    (header_line, header), *rows = records
    for column in required:
        if column not in header:
            raise InputError(
                f"{source}, line {header_line}: no column {column}; its columns are "
                f"{printable(', '.join(header))}: rename one, and separate columns with commas"
            )
    columns = [column for column in dict.fromkeys(required + optional) if column in header]
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{source} has {header.count(column)} columns {column}: keep one")
    if not rows:
        raise InputError(f"{source} has no rows below its header: download it again, or add some")
    too_long = [line for line, row in rows if any(row[len(header) :])]
    if too_long:
        raise InputError(
            f"{source}, line {too_long[0]}, column {len(header) + 1}: more values than the "
            f"{len(header)} columns of the header, in {len(too_long)} lines: "
            "put values with commas into quotes"
        )
    positions = [header.index(column) for column in columns]
    padding = [""] * len(header)  # For rows that are too short.
    return pd.DataFrame(
        [[(row + padding)[position] for position in positions] for _, row in rows],
        index=[line for line, _ in rows],
        columns=columns,
    )


def read_header(content: bytes, source: str) -> list[str]:
    """Return the names of the columns of a CSV, none if it is empty.

    Raises:
        InputError: no text, or unmatched quotes.
    """
    return next((values for _, values in _read_records(_decode_text(content, source), source)), [])


def require_all(valid: pd.Series, values: pd.Series, source: str, expected: str) -> None:
    """Raise one `InputError` for all values of a column of `read_table` that are not valid.

    The message names the table by `source`, and describes a valid value as `expected`.
    """
    if not valid.all():
        first = values[~valid].iloc[:1]
        raise InputError(
            f"{source}, line {first.index[0]}, column {values.name}: {first.iloc[0]!r} is not "
            f"{expected} ({(~valid).sum()} such lines): correct or remove them"
        )


def parse_booleans(values: pd.Series, source: str) -> pd.Series:
    """Convert a column of yes and no, true and false or 1 and 0 to booleans.

    Raises:
        InputError: any other value.
    """
    booleans = values.str.lower().map(_BOOLEANS)
    require_all(booleans.notna(), values, source, "1 or 0")
    return booleans.astype("boolean")


def parse_integers(values: pd.Series, source: str) -> pd.Series:
    """Convert a column of whole numbers to integers.

    Raises:
        InputError: any other value.
    """
    require_all(values.str.fullmatch(_INTEGER), values, source, "a whole number")
    return values.astype(float).astype("Int64")


def _decode_text(content: bytes, source: str) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ["utf-16"] if utf16 else ["utf-8-sig", "cp1252"]:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if "\0" in text:
                break
            if encoding == "cp1252":
                logger.warning("%s is not in UTF-8: read as Windows-1252", source)
            return text
    raise InputError(f"{source} is not text in UTF-8: download it again, or save it in UTF-8")


def _read_records(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line number and the values of every record that is not empty."""
    # With `newline=""`, csv handles the line ends of Unix, Windows and old Macs.
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            values = [value.strip() for value in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{source}, line {line}: unmatched quotes ({error}): "
                'close them, and double those within a value ("")'
            ) from error
        if any(values):
            yield line, values
