"""The published layouts, unpacked and zipped, built of a few bytes each."""

import re
import zipfile

import pandas as pd
import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.rawdata import RawFolder, open_location, read_esc50, read_fsdkaggle2018

CHALLENGE = {
    "train.csv": "fname,label,manually_verified\na.wav,Bark,1\nb.wav,Meow,0\n",
    "sample_submission.csv": "fname,label\nc.wav,Laughter Hi-Hat Flute\n",
    "audio_train/a.wav": "sound a",
    "audio_train/b.wav": "sound b",
    "audio_test/c.wav": "sound c",
}
RELEASE = {
    "FSDKaggle2018.meta/train_post_competition.csv": (
        "fname,label,manually_verified,freesound_id,license\n"
        "a.wav,Bark,1,5,CC0\nb.wav,Meow,0,6,CC0\n"
    ),
    "FSDKaggle2018.meta/test_post_competition.csv": (
        "fname,label,usage,freesound_id,license\n"
        "c.wav,Bark,Public,7,CC0\nd.wav,Meow,Private,8,CC0\ne.wav,None,Ignored,9,CC0\n"
    ),
    "FSDKaggle2018.audio_train/a.wav": "sound a",
    "FSDKaggle2018.audio_train/b.wav": "sound b",
    "FSDKaggle2018.audio_test/c.wav": "sound c",
    "FSDKaggle2018.audio_test/d.wav": "sound d",
    "FSDKaggle2018.audio_test/e.wav": "sound e",
}
ESC50 = {
    "meta/esc50.csv": "filename,fold,target,category\na.wav,1,0,dog\nb.wav,5,1,rain\n",
    "audio/a.wav": "sound a",
    "audio/b.wav": "sound b",
}
COLUMNS = ["fname", "label", "verified", "usage", "fold", "location", "reason"]


def unpacked(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def zipped_by_folder(folder, files):
    """As published: an archive a folder, with that folder inside."""
    for top in {name.split("/")[0] for name in files}:
        zipped(folder / f"{top}.zip", {n: x for n, x in files.items() if n.split("/")[0] == top})


def contents(table):
    """What is read at each location, by file name."""
    read = {}
    for clip in table.itertuples():
        with open_location(clip.location) as file:
            read[clip.fname] = file.read().decode()
    return read


def assert_train(table):
    assert list(table) == COLUMNS
    assert table["fname"].tolist() == ["a.wav", "b.wav"]
    assert table["label"].tolist() == ["Bark", "Meow"]
    assert table["verified"].tolist() == [True, False]
    assert table[["usage", "fold"]].isna().all(axis=None)
    assert contents(table) == {"a.wav": "sound a", "b.wav": "sound b"}


# FSDKaggle2018


@pytest.mark.parametrize("place", [unpacked, zipped_by_folder])
@pytest.mark.parametrize("files", [CHALLENGE, RELEASE])
def test_training_clips_are_read_from_both_layouts(tmp_path, place, files):
    place(tmp_path, files)
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


@pytest.mark.parametrize("place", [unpacked, zipped_by_folder])
def test_test_clips_of_the_release_have_usage_and_labels_where_they_count(tmp_path, place):
    place(tmp_path, RELEASE)
    table = read_fsdkaggle2018(tmp_path, "test").table
    assert table["usage"].tolist() == ["Public", "Private", "Ignored"]
    assert table["label"].tolist()[:2] == ["Bark", "Meow"]
    assert table["label"].isna().tolist() == [False, False, True]
    assert table[["verified", "fold"]].isna().all(axis=None)
    assert contents(table) == {"c.wav": "sound c", "d.wav": "sound d", "e.wav": "sound e"}


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


def test_the_layout_may_lie_deeper(tmp_path):
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
    assert sorted(RawFolder(tmp_path).clips(("audio_train",))) == ["a.wav", "b.wav"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    unpacked(tmp_path, {**CHALLENGE, "train.csv": "\ufeff" + CHALLENGE["train.csv"]})
    assert_train(read_fsdkaggle2018(tmp_path, "train").table)


def test_a_listed_clip_that_is_not_there_has_no_location(tmp_path):
    files = {name: x for name, x in CHALLENGE.items() if name != "audio_train/a.wav"}
    unpacked(tmp_path, files)
    table = read_fsdkaggle2018(tmp_path, "train").table
    assert table["fname"].tolist() == ["a.wav", "b.wav"]
    assert table["location"].isna().tolist() == [True, False]


def test_a_clip_of_the_other_split_is_not_found(tmp_path):
    unpacked(tmp_path, {**CHALLENGE, "sample_submission.csv": "fname,label\na.wav,Bark\n"})
    assert read_fsdkaggle2018(tmp_path, "test").table["location"].isna().all()


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
def test_half_of_the_data_is_an_error_that_names_the_other_half(tmp_path, present, missing):
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
    message = f"{tmp_path / 'train.csv'} has no column label; its columns are fname, tag"
    with pytest.raises(InputError, match=re.escape(message)):
        read_fsdkaggle2018(tmp_path, "train")


def test_half_an_archive_is_an_error_that_names_it(tmp_path):
    zipped(tmp_path / "audio_train.zip", CHALLENGE)
    whole = (tmp_path / "audio_train.zip").read_bytes()
    (tmp_path / "audio_train.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"audio_train\.zip is not a whole zip archive"):
        read_fsdkaggle2018(tmp_path, "train")


# ESC-50


def place_in_one_archive(folder, files):
    """As GitHub gives it: all in a folder of the branch's name."""
    members = {"ESC-50-master/": "", "ESC-50-master/audio/": ""}
    members |= {f"ESC-50-master/{name}": content for name, content in files.items()}
    zipped(folder / "ESC-50-master.zip", members)


@pytest.mark.parametrize("place", [unpacked, place_in_one_archive])
def test_esc50_is_read_with_its_folds(tmp_path, place):
    place(tmp_path, ESC50)
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


@pytest.mark.parametrize("absent", [["meta/esc50.csv"], ["audio/a.wav", "audio/b.wav"]])
def test_esc50_without_table_or_clips_is_an_error_with_the_remedy(tmp_path, absent):
    unpacked(tmp_path, {name: x for name, x in ESC50.items() if name not in absent})
    with pytest.raises(InputError, match=r"get ESC-50 from https://.*, or set raw_dir") as error:
        read_esc50(tmp_path, "train")
    assert str(tmp_path) in str(error.value)


def test_esc50_without_folds_is_an_error_that_names_file_and_column(tmp_path):
    unpacked(tmp_path, {**ESC50, "meta/esc50.csv": "filename,category\na.wav,dog\n"})
    with pytest.raises(InputError, match=r"esc50\.csv has no column fold"):
        read_esc50(tmp_path, "train")


@pytest.mark.parametrize("label", ["", "None"])
def test_a_training_clip_without_a_label_is_an_error_that_names_the_line(tmp_path, label):
    (tmp_path / "audio_train").mkdir()
    (tmp_path / "audio_train" / "a.wav").touch()
    (tmp_path / "train.csv").write_text(f"fname,label\na.wav,Bark\nb.wav,{label}\n")
    with pytest.raises(
        InputError, match=rf"train\.csv, line 3, column label: '{label}' is not a label, 1 in all"
    ):
        read_fsdkaggle2018(tmp_path, "train")
