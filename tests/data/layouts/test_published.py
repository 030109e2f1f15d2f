"""The published layouts, unpacked and zipped, with files of a few bytes."""

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_trees import (
    CHALLENGE,
    ESC50,
    RELEASE,
    URBANSOUND8K,
    contents,
    unpacked,
    zipped,
    zipped_by_folder,
    zipped_in_one_archive,
)

from fsat_kedro.data.layouts import read_esc50, read_fsdkaggle2018, read_urbansound8k
from fsat_kedro.data.raw_files import RawFolder
from fsat_kedro.errors import InputError

COLUMNS = ["fname", "label", "verified", "usage", "fold", "group", "path", "reason"]


def assert_train(table):
    assert list(table) == COLUMNS
    assert table["fname"].tolist() == ["a.wav", "b.wav"]
    assert table["label"].tolist() == ["Bark", "Meow"]
    assert table["verified"].tolist() == [True, False]
    assert table[["usage", "fold"]].isna().all(axis=None)
    assert contents(table) == {"a.wav": "sound a", "b.wav": "sound b"}


# FSDKaggle2018


@pytest.mark.parametrize("write", [unpacked, zipped_by_folder])
@pytest.mark.parametrize("files", [CHALLENGE, RELEASE])
def test_training_clips_are_read_from_both_layouts(tmp_path, write, files):
    write(tmp_path, files)
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


@pytest.mark.parametrize("write", [unpacked, zipped_by_folder])
def test_test_clips_of_the_release_have_usage_and_labels_unless_ignored(tmp_path, write):
    write(tmp_path, RELEASE)
    table = read_fsdkaggle2018(tmp_path, "test").table
    assert table["usage"].tolist() == ["Public", "Private", "Ignored"]
    assert table["label"].tolist()[:2] == ["Bark", "Meow"]
    assert table["label"].isna().tolist() == [False, False, True]
    assert table[["verified", "fold"]].isna().all(axis=None)
    assert contents(table) == {"c.wav": "sound c", "d.wav": "sound d", "e.wav": "sound e"}


def test_an_ignored_test_clip_has_no_label_whatever_the_table_says(tmp_path):
    table = "fname,label,usage\nc.wav,Bark,ignored\nd.wav,None,Public\ne.wav,Meow,\n"
    unpacked(tmp_path, {**RELEASE, "FSDKaggle2018.meta/test_post_competition.csv": table})
    labels = read_fsdkaggle2018(tmp_path, "test").table["label"]
    assert labels.isna().tolist() == [True, True, False]


def test_the_sample_submission_has_no_labels(tmp_path):
    unpacked(tmp_path, CHALLENGE)
    table = read_fsdkaggle2018(tmp_path, "test").table
    assert table["fname"].tolist() == ["c.wav"]
    assert table[["label", "usage"]].isna().all(axis=None)
    assert contents(table) == {"c.wav": "sound c"}


def test_clips_at_the_root_of_an_archive_belong_to_the_folder_of_its_name(tmp_path):
    unpacked(tmp_path, {"train.csv": CHALLENGE["train.csv"]})
    zipped(tmp_path / "audio_train.zip", {"a.wav": "sound a", "b.wav": "sound b"})
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


def test_the_layout_may_be_in_a_subfolder(tmp_path):
    unpacked(tmp_path / "downloads" / "freesound", CHALLENGE)
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


def test_unpacked_clips_are_preferred_over_archives_of_the_same(tmp_path):
    unpacked(tmp_path, CHALLENGE)
    stale = {name: "stale" for name in CHALLENGE if name.startswith("audio_train/")}
    zipped(tmp_path / "audio_train.zip", stale)
    zipped(tmp_path / "a_first.zip", stale)
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


@pytest.mark.parametrize("archive", ["train.csv.zip", "a_first.zip"])
def test_an_unpacked_table_is_preferred_over_one_in_an_archive(tmp_path, archive):
    unpacked(tmp_path, CHALLENGE)
    zipped(tmp_path / archive, {"train.csv": "fname,label\nstale.wav,Bark\n"})
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


def test_the_release_is_preferred_over_the_challenges_own_files(tmp_path):
    unpacked(tmp_path, RELEASE)
    unpacked(tmp_path, dict.fromkeys(CHALLENGE, "stale"))
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


def test_what_macos_adds_to_archives_is_ignored(tmp_path):
    unpacked(tmp_path, {"train.csv": CHALLENGE["train.csv"]})
    junk = {
        "__MACOSX/audio_train/a.wav": "junk",
        "__MACOSX/audio_train/._a.wav": "junk",
        "audio_train/._b.wav": "junk",
    }
    clips = {name: x for name, x in CHALLENGE.items() if name.startswith("audio_train/")}
    zipped(tmp_path / "audio_train.zip", {**clips, **junk})
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)
    assert sorted(RawFolder(tmp_path).find_clips(("audio_train",))) == ["a.wav", "b.wav"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    unpacked(tmp_path, {**CHALLENGE, "train.csv": "\ufeff" + CHALLENGE["train.csv"]})
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


def test_a_listed_clip_that_does_not_exist_has_no_path(tmp_path):
    files = {name: x for name, x in CHALLENGE.items() if name != "audio_train/a.wav"}
    unpacked(tmp_path, files)
    table = read_fsdkaggle2018(tmp_path, "train").table
    assert table["fname"].tolist() == ["a.wav", "b.wav"]
    assert table["path"].isna().tolist() == [True, False]


def test_a_clip_of_the_other_split_is_not_found(tmp_path):
    unpacked(tmp_path, {**CHALLENGE, "sample_submission.csv": "fname,label\na.wav,Bark\n"})
    assert read_fsdkaggle2018(tmp_path, "test").table["path"].isna().all()


def test_labels_that_look_like_missing_values_stay_labels(tmp_path):
    unpacked(tmp_path, {**CHALLENGE, "train.csv": "fname,label\na.wav,NA\nb.wav,null\n"})
    table = read_fsdkaggle2018(tmp_path, "train").table
    assert table["label"].tolist() == ["NA", "null"]
    assert table["verified"].isna().all()


def test_no_data_is_an_error_that_names_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(InputError) as error:
        read_fsdkaggle2018(tmp_path, "train")
    message = str(error.value)
    assert message.startswith("no table (train_post_competition.csv or train.csv) and no folder")
    assert f"train split in {tmp_path}" in message
    assert "https://zenodo.org" in message
    assert "set raw_dir" in message


@pytest.mark.parametrize(
    ("present", "missing"),
    [("train.csv", "no folder or zip of clips"), ("audio_train/a.wav", "no table")],
)
def test_a_missing_table_or_clips_folder_is_an_error_that_names_it(tmp_path, present, missing):
    unpacked(tmp_path, {present: CHALLENGE[present]})
    with pytest.raises(InputError) as error:
        read_fsdkaggle2018(tmp_path, "train")
    assert str(error.value).startswith(missing)
    assert " and no " not in str(error.value)


def test_no_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"raw_dir .*nowhere is not a folder"):
        read_fsdkaggle2018(tmp_path / "nowhere", "train")


def test_a_table_without_labels_is_an_error_that_names_file_and_column(tmp_path):
    unpacked(tmp_path, {**CHALLENGE, "train.csv": "fname,tag\na.wav,Bark\n"})
    message = f"{tmp_path / 'train.csv'}, line 1: no column label; its columns are fname, tag"
    with pytest.raises(InputError, match=re.escape(message)):
        read_fsdkaggle2018(tmp_path, "train")


def test_a_truncated_archive_is_an_error_that_names_it(tmp_path):
    zipped(tmp_path / "audio_train.zip", CHALLENGE)
    content = (tmp_path / "audio_train.zip").read_bytes()
    (tmp_path / "audio_train.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"audio_train\.zip is not a complete zip archive"):
        read_fsdkaggle2018(tmp_path, "train")


# ESC-50


@pytest.mark.parametrize("write", [unpacked, zipped_in_one_archive])
def test_esc50_is_read_with_its_folds(tmp_path, write):
    write(tmp_path, ESC50)
    table = read_esc50(tmp_path, "train").table
    assert list(table) == COLUMNS
    assert table["fname"].tolist() == ["a.wav", "b.wav"]
    assert table["label"].tolist() == ["dog", "rain"]
    assert table["fold"].tolist() == [1, 5]
    assert pd.api.types.is_integer_dtype(table["fold"])
    assert table[["verified", "usage"]].isna().all(axis=None)
    assert contents(table) == {"a.wav": "sound a", "b.wav": "sound b"}


def test_esc50_has_no_test_split(tmp_path):
    unpacked(tmp_path, ESC50)
    with pytest.raises(InputError, match="no test split"):
        read_esc50(tmp_path, "test")


@pytest.mark.parametrize("missing", [["meta/esc50.csv"], ["audio/a.wav", "audio/b.wav"]])
def test_esc50_without_table_or_clips_is_an_error_with_the_remedy(tmp_path, missing):
    unpacked(tmp_path, {name: x for name, x in ESC50.items() if name not in missing})
    with pytest.raises(InputError, match=r"get ESC-50 from https://.*, or set raw_dir") as error:
        read_esc50(tmp_path, "train")
    assert str(tmp_path) in str(error.value)


def test_esc50_without_folds_is_an_error_that_names_file_and_column(tmp_path):
    unpacked(tmp_path, {**ESC50, "meta/esc50.csv": "filename,category\na.wav,dog\n"})
    with pytest.raises(InputError, match=r"esc50\.csv, line 1: no column fold"):
        read_esc50(tmp_path, "train")


# Listed clips and existing files


def read_split(folder, table, names, split="train"):
    """Write a table of the challenge and files of these names, and read the split."""
    name = {"train": "train.csv", "test": "test_post_competition.csv"}[split]
    unpacked(folder, {name: table, **{f"audio_{split}/{name}": "sound" for name in names}})
    return read_fsdkaggle2018(folder, split)


def reasons(split_table):
    assert (split_table.table["path"].isna() == (split_table.table["reason"] != "")).all()
    return split_table.table["reason"].tolist()


def test_a_listed_clip_that_does_not_exist_has_a_reason(tmp_path):
    split_table = read_split(
        tmp_path, "fname,label\na.wav,Bark\nb.wav,Meow\nC.WAV,Hiss\n", ["a.wav", "c.wav"]
    )
    assert reasons(split_table) == [
        "",
        "listed, but not there",
        "listed, but not there: upper and lower case differ",
    ]


@pytest.mark.parametrize("write", [unpacked, zipped_by_folder])
def test_unlisted_clips_are_returned_without_hidden_files(tmp_path, write):
    more = ["d.wav", "c.wav", ".DS_Store", ".gitkeep", "Thumbs.db", ".parts/e.wav"]
    write(tmp_path, CHALLENGE | {f"audio_train/{name}": "more" for name in more})
    split_table = read_fsdkaggle2018(tmp_path, "train")
    assert split_table.unlisted == ["c.wav", "d.wav"]
    assert_train(split_table.table)


def test_a_clip_listed_twice_with_one_label_is_used_once(tmp_path):
    table = "fname,label\na.wav,Bark\n\nb.wav,Meow\na.wav, Bark\na.wav,Bark\n"
    split_table = read_split(tmp_path, table, ["a.wav", "b.wav"])
    before = "listed before, in line 2"
    assert reasons(split_table) == ["", "", before, before]
    assert split_table.unlisted == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_clip_listed_with_two_labels_is_not_used(tmp_path, split):
    table = "fname,label\na.wav,Bark\nb.wav,Meow\na.wav,Meow\na.wav,Bark\n"
    split_table = read_split(tmp_path, table, ["a.wav", "b.wav"], split)
    both = "listed with two labels: Bark, Meow"
    assert reasons(split_table) == [both, "", both, both]


def test_a_test_clip_listed_with_and_without_label_is_not_used(tmp_path):
    table = "fname,label\na.wav,\na.wav,Bark\nb.wav,None\nb.wav,\n"
    split_table = read_split(tmp_path, table, ["a.wav", "b.wav"], "test")
    both = "listed with two labels: None, Bark"
    assert reasons(split_table) == [both, both, "", "listed before, in line 4"]


def test_a_clip_listed_with_three_labels_is_not_used(tmp_path):
    split_table = read_split(tmp_path, "fname,label\na.wav,A\na.wav,B\na.wav,C\n", ["a.wav"])
    assert reasons(split_table) == ["listed with 3 labels: A, B, C"] * 3


COMPOSED, DECOMPOSED = "café.wav", "cafe\N{COMBINING ACUTE ACCENT}.wav"


@pytest.mark.parametrize(("listed", "existing"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_accents_match_in_either_unicode_form(tmp_path, listed, existing):
    split_table = read_split(tmp_path, f"fname,label\n{listed},Bark\n", [existing])
    assert contents(split_table.table) == {listed: "sound"}
    assert split_table.unlisted == []


def test_a_name_in_both_unicode_forms_is_listed_twice(tmp_path):
    table = f"fname,label\n{COMPOSED},Bark\n{DECOMPOSED},Bark\n"
    assert reasons(read_split(tmp_path, table, [COMPOSED])) == ["", "listed before, in line 2"]


@pytest.mark.parametrize("name", ["a b.wav", "-a.wav", "🐕.wav", "a\nb.wav", "::.wav", " a.wav"])
def test_unusual_names_are_found(tmp_path, name):
    split_table = read_split(tmp_path, f'fname,label\n"{name}",Bark\n', [name])
    assert contents(split_table.table) == {name.strip(): "sound"}


def test_a_name_that_is_not_utf_8_is_only_unlisted(tmp_path):
    unpacked(tmp_path, CHALLENGE)
    try:
        (tmp_path / "audio_train" / "caf\udce9.wav").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system accepts only UTF-8 names")
    split_table = read_fsdkaggle2018(tmp_path, "train")
    assert_train(split_table.table)
    assert json.loads(json.dumps(split_table.unlisted)) == ["caf\\udce9.wav"]


def test_a_clip_in_a_folder_whose_name_is_not_utf_8_has_its_path(tmp_path):
    folder = tmp_path / "\udce9" / "audio_train"
    try:
        folder.mkdir(parents=True)
    except (OSError, UnicodeError):
        pytest.skip("this file system accepts only UTF-8 names")
    (folder / "a.wav").touch()
    (tmp_path / "train.csv").write_text("fname,label\na.wav,Bark\nb.wav,Bark\n")
    table = read_fsdkaggle2018(tmp_path, "train").table
    assert table["path"].tolist() == [str(folder / "a.wav"), None]


# Files outside the raw folder are not read

PATHS = [
    "../outside/canary.wav",
    "..\\outside\\canary.wav",
    "sub/b.wav",
    "./a.wav",
    ".",
    "..",
    "/etc/passwd",
    "//etc/passwd",
    "\\\\server\\a.wav",
    "audio_train.zip//a.wav",
    ".hidden.wav",
]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_in_the_table_is_rejected(tmp_path, name):
    existing = ["a.wav", "sub/b.wav", ".hidden.wav", "../../outside/canary.wav"]
    split_table = read_split(tmp_path / "raw", f"fname,label\n{name},Bark\n", existing)
    assert reasons(split_table) == [
        "a path or a hidden file: only files directly in the folder are read"
    ]
    assert split_table.unlisted == ["a.wav"]


def test_a_file_with_a_backslash_in_its_name_is_rejected(tmp_path):
    zipped(tmp_path / "audio_train.zip", {"sub\\a.wav": "sound"})
    unpacked(tmp_path, {"train.csv": "fname,label\nsub\\a.wav,Bark\n"})
    assert reasons(read_fsdkaggle2018(tmp_path, "train"))[0].startswith("a path or a hidden file")


@pytest.fixture(scope="module")
def opened():
    """A function that calls another and returns the paths of all files that it opens."""
    paths, watching = [], []

    def record(event, arguments):
        # Numbers are descriptors of files that are already open.
        if watching and event in ("open", "os.scandir") and not isinstance(arguments[0], int):
            paths.append(os.path.realpath(arguments[0]))

    def run(function):
        paths.clear()
        watching.append(True)
        try:
            function()
        finally:
            watching.clear()
        return list(paths)

    # An audit hook cannot be removed.
    sys.addaudithook(record)
    return run


@pytest.fixture(scope="module")
def beside_a_canary(tmp_path_factory):
    """A raw folder with clips, zipped clips and links to a folder beside it."""
    top = tmp_path_factory.mktemp("canary")
    unpacked(top, {"outside/canary.wav": "canary", "raw/audio_train/a.wav": "sound"})
    raw = top / "raw"
    zipped(raw / "audio_train.zip", {"b.wav": "sound", "../../outside/canary.wav": "sound"})
    (raw / "audio_train" / "link.wav").symlink_to(top / "outside" / "canary.wav")
    (raw / "audio_train" / "folder").symlink_to(top / "outside")
    # Otherwise imports of the first call would be among the opened files.
    read_split(raw, "fname,label\na.wav,Bark\n", ["a.wav"])
    return raw


NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from([*PATHS, "a.wav", "b.wav", "link.wav", "folder", "folder/canary.wav"]),
)


@settings(deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=5), canary=st.booleans())
def test_no_name_in_a_table_makes_a_file_outside_be_read(beside_a_canary, opened, names, canary):
    raw = beside_a_canary
    names = names + [str(raw.parent / "outside" / "canary.wav")] * canary
    quoted = [name.replace('"', '""') for name in names]
    rows = ["fname,label", *(f'"{name}",Bark' for name in quoted)]
    (raw / "train.csv").write_bytes("\n".join(rows).encode())

    def read():
        # An empty name, or one with a NUL, is an error.
        with suppress(InputError):
            table = read_fsdkaggle2018(raw, "train").table
            assert len(table) == len(names)
            assert set(contents(table.dropna(subset="path"))) <= {"a.wav", "b.wav"}

    paths = opened(read)
    assert paths
    assert [path for path in paths if not Path(path).is_relative_to(raw)] == []


def test_a_clip_that_is_a_link_out_of_the_raw_folder_has_a_reason(beside_a_canary):
    (beside_a_canary / "train.csv").write_text("fname,label\na.wav,Bark\nlink.wav,Bark\n")
    split_table = read_fsdkaggle2018(beside_a_canary, "train")
    assert reasons(split_table) == ["", "a link out of the raw folder"]


@pytest.mark.parametrize("name", ["audio_train", "audio_train.zip"])
def test_clips_behind_a_link_out_of_the_raw_folder_are_an_error_that_names_it(tmp_path, name):
    unpacked(tmp_path, {"raw/train.csv": CHALLENGE["train.csv"], f"outside/{name}/a.wav": ""})
    (tmp_path / "raw" / name).symlink_to(tmp_path / "outside" / name)
    with pytest.raises(InputError) as error:
        read_fsdkaggle2018(tmp_path / "raw", "train")
    message = str(error.value)
    assert message.startswith("no folder or zip of clips")
    assert f"{tmp_path}/raw/{name} is a link out of the raw folder: move its target" in message
    assert message.endswith("here, or set raw_dir")


def test_esc50_behind_a_link_out_of_the_raw_folder_is_an_error_that_names_it(tmp_path):
    unpacked(tmp_path / "outside", ESC50)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ESC-50").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="raw/ESC-50 is a link out of the raw folder"):
        read_esc50(tmp_path / "raw", "train")


# Invalid tables


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ("fname,label\na.wav,Bark\n\n b.wav , \n", "line 4, column label: '' is not a label"),
        ("fname,label\na.wav,None\n", "line 2, column label: 'None' is not a label"),
        ("fname,label\n ,Bark\n", "line 2, column fname: '' is not a file name"),
        (
            "fname,label,manually_verified\na.wav,Bark,1\nb.wav,Meow,\n",
            "line 3, column manually_verified: '' is not 1 or 0",
        ),
        ("fname,label\na.wav,Bark,Meow\n", "line 2, column 3: more values than the 2 columns"),
        ('fname,label\na.wav,"Bark\n', "line 2: unmatched quotes"),
    ],
)
def test_an_invalid_line_is_an_error_that_names_it(tmp_path, table, where):
    with pytest.raises(InputError) as error:
        read_split(tmp_path, table, ["a.wav"])
    assert str(error.value).startswith(f"{tmp_path / 'train.csv'}, {where}")


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("b.wav,one,1,rain", "line 3, column fold: 'one' is not a whole number"),
        ("b.wav,,1,rain", "line 3, column fold: '' is not a whole number"),
        (",1,1,rain", "line 3, column filename: '' is not a file name"),
        ("b.wav,1,1,", "line 3, column category: '' is not a label"),
    ],
)
def test_an_invalid_line_of_esc50_is_an_error_that_names_it(tmp_path, line, where):
    table = f"filename,fold,target,category\na.wav,1,0,dog\n{line}\n"
    unpacked(tmp_path, {**ESC50, "meta/esc50.csv": table})
    with pytest.raises(InputError) as error:
        read_esc50(tmp_path, "train")
    assert str(error.value).startswith(f"{tmp_path / 'meta' / 'esc50.csv'}, {where}")


def test_an_unknown_usage_is_kept(tmp_path):
    split_table = read_split(
        tmp_path, "fname,usage\na.wav,Secret\nb.wav,\n", ["a.wav", "b.wav"], "test"
    )
    assert split_table.table["usage"].tolist() == ["Secret", ""]


def test_a_damaged_table_in_an_archive_is_an_error_that_names_it(tmp_path):
    unpacked(tmp_path, {"audio_train/a.wav": "sound"})
    zipped(tmp_path / "meta.zip", {"train.csv": CHALLENGE["train.csv"]})
    content = (tmp_path / "meta.zip").read_bytes().replace(b"Bark", b"Bork")
    (tmp_path / "meta.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"meta\.zip//train\.csv is not readable .*: download it"):
        read_fsdkaggle2018(tmp_path, "train")


def test_an_encrypted_table_in_a_plain_archive_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "all.zip"
    zipped(path, {"train.csv": CHALLENGE["train.csv"], "audio_train/a.wav": "sound"})
    content = bytearray(path.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"all\.zip//train\.csv is not readable .*encrypted"):
        read_fsdkaggle2018(tmp_path, "train")


# UrbanSound8K


@pytest.mark.parametrize("write", [unpacked, zipped_in_one_archive])
def test_urbansound8k_is_read_with_its_folds_and_recordings(tmp_path, write):
    write(tmp_path, URBANSOUND8K)
    table = read_urbansound8k(tmp_path, "train").table
    assert list(table) == COLUMNS
    assert table["label"].tolist() == ["dog_bark", "dog_bark", "siren"]
    assert table["fold"].tolist() == [1, 1, 10]
    assert table["group"].tolist() == ["7", "7", "8"]
    assert contents(table) == {
        "7-0-0-0.wav": "sound 7-0",
        "7-0-0-1.wav": "sound 7-1",
        "8-0-0-0.wav": "sound 8-0",
    }


def test_urbansound8k_without_its_clips_is_an_error_with_the_remedy(tmp_path):
    unpacked(tmp_path, {name: x for name, x in URBANSOUND8K.items() if name.endswith("csv")})
    with pytest.raises(InputError, match=r"no folder or zip of clips \(fold1 or .* or fold10\)"):
        read_urbansound8k(tmp_path, "train")
