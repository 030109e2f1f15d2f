"""Tables with names and labels that a spreadsheet would run."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_datasets import catalog_at

from fsat_kedro.datasets import TableDataset

DANGEROUS = ["=HYPERLINK(1)", "+1+1", "-Bark", "@SUM(A1)", "\uff1d1+1", "'=1", "''-x"]
HARMLESS = ["'tis", "a=b", "", "5-", "犬"]


@pytest.fixture
def dataset(tmp_path):
    return TableDataset(filepath=str(tmp_path / "table.csv"), save_args={"float_format": "%.2f"})


def cells_of(dataset):
    """Return the first column as a spreadsheet sees it."""
    with Path(dataset._filepath).open(newline="", encoding="utf-8") as file:
        return [row[0] for row in csv.reader(file)][1:]


def test_a_text_that_a_spreadsheet_would_run_has_an_apostrophe(dataset):
    dataset.save(pd.DataFrame({"label": DANGEROUS + HARMLESS, "n": 1}))
    assert cells_of(dataset) == [f"'{text}" for text in DANGEROUS] + HARMLESS


def test_a_table_comes_back_as_it_was_saved(dataset):
    labels = [text or None for text in DANGEROUS + HARMLESS]
    table = pd.DataFrame({"label": labels, "score": -0.5, "count": -3, "verified": True})
    table.loc[0, "score"] = np.nan
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table)
    assert table["label"][0] == DANGEROUS[0]


def test_numbers_stay_numbers(dataset):
    dataset.save(pd.DataFrame({"score": [-0.126, np.nan], "count": [-3, 4]}))
    assert dataset._filepath.name == "table.csv"
    assert Path(dataset._filepath).read_text("utf-8") == "score,count\n-0.13,-3\n,4\n"


def test_what_cannot_be_printed_is_saved_with_escapes(dataset):
    dataset.save(pd.DataFrame({"fname": ["\t=1", "\r=1\n", "a\x1b[31m"], "n": 1}))
    assert cells_of(dataset) == [r"\t=1", r"\r=1\n", r"a\x1b[31m"]
    dataset.save(pd.DataFrame({"fname": pd.Series(["bark\udcff.wav"], dtype=object)}))
    assert cells_of(dataset) == [r"bark\udcff.wav"]


def test_a_table_without_rows_or_with_repeated_rows_is_saved(dataset):
    table = pd.DataFrame({"fname": ["-a", "b"], "reason": ["=x", "y"]}, index=[0, 0])
    dataset.save(table)
    assert dataset.load().values.tolist() == [["-a", "=x"], ["b", "y"]]
    dataset.save(table[:0])
    assert dataset.load().columns.tolist() == ["fname", "reason"]


@pytest.mark.parametrize(
    "name",
    ["tags", "rejected_clips", "clip_warnings", "class_scores", "misclassified_clips"],
)
def test_tables_for_people_are_safe(tmp_path, name):
    catalog = catalog_at(str(tmp_path), tmp_path)
    table = pd.DataFrame({"fname": ["-bark.wav"], "label": ["=Bark"]})
    catalog.save(name, table)
    assert cells_of(catalog[name]) == ["'-bark.wav"]
    pd.testing.assert_frame_equal(catalog.load(name), table)


def test_the_submission_is_as_the_challenge_wants_it(tmp_path):
    catalog = catalog_at(str(tmp_path), tmp_path)
    catalog.save("submission", pd.DataFrame({"fname": ["-bark.wav"], "label": ["=Bark -Meow"]}))
    assert cells_of(catalog["submission"]) == ["-bark.wav"]
