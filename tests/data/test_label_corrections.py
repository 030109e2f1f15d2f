"""Corrections of labels, on a table of a few clips."""

import logging
import zipfile

import pandas as pd
import pytest

from fsat_kedro.data.label_corrections import (
    DROPPED,
    TABLE,
    correct_labels,
    find_corrections,
    format_corrections,
    merge_corrections,
)
from fsat_kedro.data.layouts import read_fsdkaggle2018
from fsat_kedro.errors import InputError

NAMES = ["a.wav", "b.wav", "c.wav", "é.wav"]


@pytest.fixture
def raw(tmp_path):
    """A raw folder of four clips, the first of them verified."""
    clips = tmp_path / "audio_train"
    clips.mkdir()
    for name in NAMES:
        (clips / name).write_text("sound")
    rows = "a.wav,Bark,1\nb.wav,Meow,0\nc.wav,Bark,0\né.wav,Meow,0\n"
    (tmp_path / "train.csv").write_text("fname,label,manually_verified\n" + rows, "utf-8")
    return tmp_path


def corrected(raw, *rows, header="fname,label"):
    (raw / TABLE).write_text("\n".join([header, *rows]), "utf-8")
    return correct_labels(read_fsdkaggle2018(raw, "train").table, raw)


def test_without_a_table_nothing_changes(raw):
    table = read_fsdkaggle2018(raw, "train").table
    clips = correct_labels(table, raw)
    pd.testing.assert_frame_equal(clips.drop(columns=["correction", "note"]), table)
    assert clips["correction"].tolist() == clips["note"].tolist() == [""] * 4


def test_labels_are_changed_confirmed_and_dropped_and_count_as_verified(raw):
    clips = corrected(
        raw, "b.wav,Bark,a dog", "c.wav,Bark", "é.wav,,noise", header="fname,label,note"
    )
    assert clips["label"].fillna("none").tolist() == ["Bark", "Bark", "Bark", "none"]
    assert clips["verified"].tolist() == [True, True, True, True]
    assert clips["correction"].tolist() == ["", "changed", "confirmed", "dropped"]
    assert clips["note"].tolist() == ["", "a dog", "", "noise"]
    assert clips["reason"].tolist() == ["", "", "", DROPPED]
    assert clips["path"].notna().tolist() == [True, True, True, False]


def test_names_are_compared_as_those_of_clips_are(raw):
    decomposed = "e\N{COMBINING ACUTE ACCENT}.wav"
    clips = corrected(raw, f"{decomposed},Bark")
    assert clips["correction"].tolist() == ["", "", "", "changed"]
    (raw / "train.csv").write_text(f"fname,label\na.wav,Bark\n{decomposed},Meow\n", "utf-8")
    assert corrected(raw, "é.wav,Bark")["correction"].tolist() == ["", "changed"]


def test_verified_stays_unknown_for_clips_that_are_not_corrected(raw):
    (raw / "train.csv").write_text("fname,label\na.wav,Bark\nb.wav,Meow\n")
    clips = corrected(raw, "b.wav,Meow")
    assert clips["verified"].isna().tolist() == [True, False]


def test_a_correction_of_a_clip_that_is_not_there_is_named_with_its_line(raw):
    with pytest.raises(InputError, match=rf"{TABLE}, line 3.*'x\.wav' is not the file name of a"):
        corrected(raw, "b.wav,Bark", "x.wav,Bark")


def test_two_corrections_of_a_clip_have_to_agree(raw):
    assert corrected(raw, "b.wav,Bark", "b.wav,Bark")["label"][1] == "Bark"
    with pytest.raises(InputError, match=r"lines 2 and 4: 'b\.wav' is corrected to 'Bark' and ''"):
        corrected(raw, "b.wav,Bark", "c.wav,Meow", "b.wav,")


def test_a_label_that_no_other_clip_has_is_told(raw, caplog):
    caplog.set_level(logging.INFO, "fsat_kedro")
    corrected(raw, "b.wav,Bork", "c.wav,Meow")
    (counts,) = [x.getMessage() for x in caplog.records if x.levelno == logging.INFO]
    assert counts.endswith("2 labels changed, 0 labels confirmed, 0 labels dropped")
    (warning,) = [x.getMessage() for x in caplog.records if x.levelno == logging.WARNING]
    assert warning.endswith("which no other clip has: Bork")


def test_a_table_without_a_column_of_labels_is_refused(raw):
    with pytest.raises(InputError, match="no column label"):
        corrected(raw, "b.wav,Bark", header="fname,class")


def test_merged_corrections_replace_those_of_the_same_clip_and_keep_the_others(raw):
    (raw / TABLE).write_text("fname,label\nB.wav,Bark\nb.wav,Bark\ne\u0301.wav,Bark\n", "utf-8")
    found, path = find_corrections(raw)
    merged = merge_corrections(found, {"é.wav": ("", "noise, only"), "c.wav": ("Meow", "")})
    rows = [["B.wav", "Bark", ""], ["b.wav", "Bark", ""]]
    rows += [["é.wav", "", "noise, only"], ["c.wav", "Meow", ""]]
    assert merged.to_numpy().tolist() == rows
    path.write_bytes(format_corrections(merged))
    assert find_corrections(raw)[0].to_numpy().tolist() == rows


@pytest.mark.parametrize("place", ["", "below", "zipped", "none"])
def test_new_corrections_go_where_the_next_run_reads_them(raw, place):
    expected = raw / TABLE
    if place == "below":
        expected = raw / "below" / TABLE
        expected.parent.mkdir()
    if place == "zipped":
        with zipfile.ZipFile(raw / "labels.zip", "w") as archive:
            archive.writestr(TABLE, "fname,label\nb.wav,Bark\n")
    elif place != "none":
        expected.write_text("fname,label\nb.wav,Bark\n")
    found, path = find_corrections(raw)
    assert found["fname"].tolist() == ([] if place == "none" else ["b.wav"])
    assert path == expected
    path.write_bytes(format_corrections(merge_corrections(found, {"c.wav": ("Meow", "")})))
    clips = correct_labels(read_fsdkaggle2018(raw, "train").table, raw)
    assert clips["label"].tolist()[1:3] == ["Meow" if place == "none" else "Bark", "Meow"]
