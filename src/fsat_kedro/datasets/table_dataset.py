"""Dataset for tables that people open."""

import re
from typing import Any

import pandas as pd
from kedro_datasets.pandas import CSVDataset

from fsat_kedro.data.raw_files import printable

# Spreadsheets run a cell that begins with one of these; some know the wide forms too.
_FORMULA = re.compile("'*[=+\\-@\uff1d\uff0b\uff0d\uff20]")


class TableDataset(CSVDataset):
    """A table as a CSV file that is safe to open in a spreadsheet.

    File names and labels come from outside. A text that a spreadsheet would run as a formula, such
    as `=HYPERLINK(…)`, is saved with an apostrophe before it, and loaded without. What cannot be
    printed is saved with escapes, see `printable`. Numbers stay numbers.

    Example:
        In `catalog.yml`::

            class_scores:
              type: fsat_kedro.datasets.TableDataset
              filepath: data/08_reporting/class_scores.csv

        In Python::

            dataset = TableDataset(filepath="data/08_reporting/class_scores.csv")
            dataset.save(pd.DataFrame({"label": ["-Bark"], "map_at_3": [0.9]}))
            scores = dataset.load()
    """

    def save(self, data: pd.DataFrame) -> None:
        """Write the table, in place of what was there."""
        super().save(_map_texts(data, _neutralize))

    def load(self) -> pd.DataFrame:
        """Load the table."""
        return _map_texts(super().load(), _restore)


def spreadsheet_csv(table: pd.DataFrame) -> str:
    """Return the text of a CSV file without cells that a spreadsheet would run."""
    return _map_texts(table, _neutralize).to_csv(index=False, float_format="%.6f")


def _map_texts(table: pd.DataFrame, function: Any) -> pd.DataFrame:
    def apply(cell: Any) -> Any:
        return function(cell) if isinstance(cell, str) else cell

    texts = table.select_dtypes(exclude=["number", "bool"])
    return table.assign(**{name: texts[name].map(apply) for name in texts})


def _neutralize(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _restore(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
