"""Folders of people's own sounds: one per class, and tables of paths and labels."""

import os

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from raw_trees import (
    PER_CLASS,
    TABLE,
    contents,
    unpacked,
    zipped,
    zipped_by_folder,
    zipped_in_one_archive,
)

from fsat_kedro.data.label_corrections import correct_labels
from fsat_kedro.data.layouts.own import (
    find_class_splits,
    find_table_splits,
    read_folder_per_class,
    read_own_table,
)
from fsat_kedro.data.raw_files import RawFolder
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import TableColumns

RECOGNISED = TableColumns(file=None, label=None)
WRITE = [unpacked, zipped_by_folder, zipped_in_one_archive]


def labels(table):
    return dict(zip(table["fname"], table["label"], strict=True))


def read_table(folder, split="train", columns=RECOGNISED):
    return read_own_table(folder, split, columns=columns)


# A folder per class


@pytest.mark.parametrize("write", WRITE)
def test_the_label_is_the_folder_and_the_name_is_the_path(tmp_path, write):
    write(tmp_path, PER_CLASS)
    table, unlisted = read_folder_per_class(tmp_path, "train")
    expected = {"dog/1.wav": "dog", "dog/2.wav": "dog", "cat/1.wav": "cat", "cat/3.FLAC": "cat"}
    assert labels(table) == expected
    assert contents(table) == {name: name[:5].replace("/", " ") for name in expected}
    assert (table["reason"] == "").all()
    assert unlisted == []
    assert find_class_splits(RawFolder(tmp_path)) == ["train"]


@pytest.mark.parametrize("write", WRITE)
def test_folders_train_and_test_above_the_classes_are_splits(tmp_path, write):
    files = {f"train/{name}": content for name, content in PER_CLASS.items()}
    write(tmp_path, files | {"test/dog/1.wav": "another", "later/dog/9.wav": "unused"})
    assert find_class_splits(RawFolder(tmp_path)) == ["train", "test"]
    train, test = (read_folder_per_class(tmp_path, split) for split in ("train", "test"))
    assert set(train.table["fname"]) == set(files)
    assert contents(test.table) == {"test/dog/1.wav": "another"}
    assert test.table["label"].tolist() == ["dog"]
    assert [name.removeprefix("ESC-50-master/") for name in train.unlisted] == ["later/dog/9.wav"]
    assert test.unlisted == []


def test_a_train_folder_without_a_test_folder_is_no_split(tmp_path):
    unpacked(tmp_path, {f"train/{name}": content for name, content in PER_CLASS.items()})
    assert find_class_splits(RawFolder(tmp_path)) == ["train"]
    assert set(read_folder_per_class(tmp_path, "train").table["fname"]) == set(PER_CLASS)
    with pytest.raises(InputError, match="no test split"):
        read_folder_per_class(tmp_path, "test")


@pytest.mark.parametrize(
    "files",
    [
        {"dog/1.wav": "", "dog/2.wav": ""},
        {"dog/1.wav": "", "cat/notes.txt": "", "3.wav": ""},
        {"Train/1.wav": "", "Test/2.wav": ""},
        {"audio_train/1.wav": "", "audio_test/2.wav": ""},
        {"audio/fold1/1.wav": "", "audio/fold2/2.wav": ""},
    ],
)
def test_fewer_than_two_folders_of_classes_are_an_error(tmp_path, files):
    unpacked(tmp_path, files)
    assert find_class_splits(RawFolder(tmp_path)) == []
    with pytest.raises(InputError, match="no two folders of sound files"):
        read_folder_per_class(tmp_path, "train")


def test_sounds_without_a_class_are_unlisted_and_other_files_do_not_matter(tmp_path):
    unpacked(tmp_path, {**PER_CLASS, "stray.wav": "", "README.md": "", "dog/cover.jpg": ""})
    table, unlisted = read_folder_per_class(tmp_path, "train")
    assert set(table["fname"]) == set(PER_CLASS)
    assert unlisted == ["stray.wav"]


@pytest.mark.parametrize(
    ("top", "place"), [("", ""), ("", "clips/"), ("clips/", "clips/"), ("clips/", "clips/clips/")]
)
def test_an_archive_that_is_unpacked_too_is_read_once(tmp_path, top, place):
    zipped(tmp_path / "clips.zip", {f"{top}{name}": "packed" for name in PER_CLASS})
    unpacked(tmp_path, {f"{place}{name}": content for name, content in PER_CLASS.items()})
    table = read_folder_per_class(tmp_path, "train").table
    assert len(table) == len(PER_CLASS)
    assert sorted(contents(table).values()) == sorted(PER_CLASS.values())


def test_archives_of_single_classes_count_as_their_folders(tmp_path):
    zipped(tmp_path / "dog.zip", {"1.wav": "dog 1"})
    zipped(tmp_path / "cat.zip", {"1.wav": "cat 1"})
    table = read_folder_per_class(tmp_path, "train").table
    assert contents(table) == {"dog/1.wav": "dog 1", "cat/1.wav": "cat 1"}


def test_a_clip_that_links_out_of_the_raw_folder_has_a_reason(tmp_path):
    unpacked(tmp_path, {"outside/3.wav": "", **{f"raw/{name}": "" for name in PER_CLASS}})
    (tmp_path / "raw" / "dog" / "3.wav").symlink_to(tmp_path / "outside" / "3.wav")
    table = read_folder_per_class(tmp_path / "raw", "train").table.set_index("fname")
    assert table.loc["dog/3.wav", "reason"] == "a link out of the raw folder"
    assert table["path"].isna().sum() == 1


def test_labels_that_look_like_missing_values_are_labels(tmp_path):
    unpacked(tmp_path, {"None/1.wav": "", "NA/1.wav": "", "nan/1.wav": ""})
    assert set(read_folder_per_class(tmp_path, "train").table["label"]) == {"None", "NA", "nan"}


def test_names_that_are_not_utf_8_are_shown_with_escapes(tmp_path):
    try:
        (tmp_path / "caf\udce9").mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system accepts only UTF-8 names")
    (tmp_path / "caf\udce9" / "1.wav").touch()
    unpacked(tmp_path, {"dog/1.wav": ""})
    table = read_folder_per_class(tmp_path, "train").table
    assert set(table["fname"]) == {"caf\\udce9/1.wav", "dog/1.wav"}
    assert set(table["label"]) == {"caf\\udce9", "dog"}
    assert all(map(os.path.exists, table["path"]))


# A table


@pytest.mark.parametrize("write", WRITE)
def test_a_table_lists_paths_ends_of_paths_and_names(tmp_path, write):
    write(tmp_path, TABLE)
    assert find_table_splits(RawFolder(tmp_path), RECOGNISED) == ["train"]
    table, unlisted = read_table(tmp_path)
    assert labels(table) == {"a/1.wav": "Bark", "b/1.wav": "Meow", "2.wav": "Bark"}
    assert contents(table) == {"a/1.wav": "sound a/1", "b/1.wav": "sound b/1", "2.wav": "sound 2"}
    assert unlisted == []


def test_a_table_has_optional_columns(tmp_path):
    rows = "path,class,split,fold,verified,group\na.wav,X,train,2,yes,r1\nb.wav,Y,Train,1,0,\n"
    unpacked(tmp_path, {"t.csv": rows + "c.wav,X,test,,,r1\nd.wav,,TEST,,,\n"})
    unpacked(tmp_path, {f"{name}.wav": "" for name in "abcde"})
    assert find_table_splits(RawFolder(tmp_path), RECOGNISED) == ["train", "test"]
    train, test = read_table(tmp_path), read_table(tmp_path, "test")
    assert train.table["fname"].tolist() == ["a.wav", "b.wav"]
    assert train.table["fold"].tolist() == [2, 1]
    assert train.table["verified"].tolist() == [True, False]
    assert train.table["group"].fillna("none").tolist() == ["r1", "none"]
    assert test.table["label"].fillna("none").tolist() == ["X", "none"]
    assert test.table[["fold", "verified"]].isna().all(axis=None)
    assert (train.unlisted, test.unlisted) == (["e.wav"], [])


def test_labels_csv_is_preferred_and_corrections_are_never_the_table(tmp_path):
    corrections = {"label_corrections.csv": "fname,label\na.wav,Hiss\n"}
    unpacked(tmp_path, {"a.wav": "", "x.csv": "file,label\na.wav,Bark\n", **corrections})
    table = read_table(tmp_path).table
    assert table["label"].tolist() == ["Bark"]
    assert correct_labels(table, tmp_path)["label"].tolist() == ["Hiss"]
    unpacked(tmp_path, {"y.csv": "", "labels.csv": "file,label\na.wav,Meow\n"})
    assert read_table(tmp_path).table["label"].tolist() == ["Meow"]


@pytest.mark.parametrize(
    "files", [{}, {"a.csv": "", "b.csv": ""}, {"label_corrections.csv": "fname,label\na,b\n"}]
)
def test_without_a_table_there_is_an_error_that_says_what_to_write(tmp_path, files):
    unpacked(tmp_path, {"a.wav": "", **files})
    assert find_table_splits(RawFolder(tmp_path), RECOGNISED) == []
    with pytest.raises(InputError, match=r"write labels\.csv with columns fname and label"):
        read_table(tmp_path)


def test_the_columns_of_a_table_may_be_named(tmp_path):
    unpacked(tmp_path, {"a.wav": "", "t.csv": "sound,fname,kind,label\na.wav,x,Bark,7\n"})
    columns = TableColumns(file="sound", label="kind")
    assert labels(read_table(tmp_path, columns=columns).table) == {"a.wav": "Bark"}
    missing = TableColumns(file="sounds", label=None)
    assert find_table_splits(RawFolder(tmp_path), missing) == []
    with pytest.raises(InputError, match=r"t\.csv, line 1: no column sounds; its columns are"):
        read_table(tmp_path, columns=missing)


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (",Bark,train,1", "line 2, column fname: '' is not a file name"),
        ("a.wav,,train,1", "line 2, column label: '' is not a label"),
        ("a.wav,Bark,dev,1", "line 2, column split: 'dev' is not train or test"),
        ("a.wav,Bark,train,x", "line 2, column fold: 'x' is not a whole number"),
    ],
)
def test_an_impossible_value_is_an_error_that_names_it(tmp_path, row, where):
    unpacked(tmp_path, {"a.wav": "", "labels.csv": f"fname,label,split,fold\n{row}\n"})
    with pytest.raises(InputError, match=where):
        read_table(tmp_path)


def test_a_table_without_test_clips_has_no_test_split(tmp_path):
    unpacked(tmp_path, TABLE)
    with pytest.raises(InputError, match="no test split"):
        read_table(tmp_path, "test")


def test_clips_that_are_missing_unclear_or_listed_twice_have_a_reason(tmp_path):
    rows = ["1.wav", "3.wav", "2.wav", "b/2.wav", "sounds\\\\a\\\\1.wav", "../2.wav", "./a/1.wav"]
    listed = "\n".join(f"{name},Bark" for name in rows).replace("\\\\", "\\")
    unpacked(tmp_path, {**TABLE, "labels.csv": f"fname,label\n{listed}\n"})
    reasons = read_table(tmp_path).table["reason"].tolist()
    assert reasons == [
        "several files have this name: sounds/a/1.wav, sounds/b/1.wav",
        "listed, but not there",
        "",
        "listed before, in line 4",
        "",
        "listed, but not there",
        "listed before, in line 6",
    ]


def test_a_clip_in_both_splits_is_used_in_the_first_only(tmp_path):
    rows = "fname,label,split\na.wav,Bark,train\na.wav,Bark,test\n"
    unpacked(tmp_path, {"a.wav": "", "labels.csv": rows})
    assert read_table(tmp_path).table["reason"].tolist() == [""]
    assert read_table(tmp_path, "test").table["reason"].tolist() == ["listed before, in line 2"]


NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=3)
PATHS = st.sets(
    st.lists(NAMES, min_size=2, max_size=4).map(lambda names: "/".join(names) + ".wav"),
    min_size=1,
    max_size=6,
)


@given(paths=PATHS, data=st.data())
def test_every_path_finds_its_own_file(tmp_path_factory, paths, data):
    assume(len({path.casefold() for path in paths}) == len(paths))
    folder = tmp_path_factory.mktemp("table")
    try:
        data.draw(st.sampled_from(WRITE))(folder, {path: path for path in paths})
    except OSError:
        assume(False)
    rows = pd.DataFrame({"path": sorted(paths), "label": "Bark"})
    rows.to_csv(folder / "labels.csv", index=False)
    table = read_table(folder).table
    found = table[table["reason"] == ""]
    assert contents(found) == {name: name for name in found["fname"]}
    # A path that is also the end of another one may fit several files of an archive.
    is_end = [any(other.endswith(f"/{name}") for other in paths) for name in table["fname"]]
    assert (found["fname"].isin(paths)).all()
    assert len(found) >= len(paths) - sum(is_end)
