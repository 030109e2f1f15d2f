"""Recognition of raw folders in every layout, unpacked and zipped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_trees import (
    CHALLENGE,
    ESC50,
    PER_CLASS,
    RELEASE,
    URBANSOUND8K,
    unpacked,
    zipped_by_folder,
    zipped_in_one_archive,
)

from fsat_kedro.data.layouts import RawData, inspect_raw_data, layouts, recognise_layout
from fsat_kedro.data.raw_files import RawFolder
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Parameters, TableColumns

COLUMNS = TableColumns(file=None, label=None)
ONE_FOLDER = {"all.csv": "file,class\nx.wav,Bark\n", "clips/x.wav": "", "clips/y.wav": ""}
EXPECTED = [
    (CHALLENGE, RawData("fsdkaggle2018", ["train", "test"], 0)),
    (RELEASE, RawData("fsdkaggle2018", ["train", "test"], 0)),
    (ESC50, RawData("esc50", ["train"], 2)),
    (URBANSOUND8K, RawData("urbansound8k", ["train"], 2)),
    (PER_CLASS, RawData("folder_per_class", ["train"], 0)),
    (ONE_FOLDER, RawData("table", ["train"], 0)),
]


def inspect(folder, dataset="auto"):
    return inspect_raw_data(folder, dataset, COLUMNS)


@pytest.mark.parametrize("write", [unpacked, zipped_by_folder, zipped_in_one_archive])
@pytest.mark.parametrize(("files", "expected"), EXPECTED)
def test_every_layout_is_recognised(tmp_path, write, files, expected):
    write(tmp_path, files)
    assert inspect(tmp_path) == expected
    assert inspect(tmp_path, expected.dataset) == expected


@pytest.mark.parametrize("kept", ["audio_test/c.wav", "sample_submission.csv"])
def test_a_test_split_is_there_if_any_part_of_it_is(tmp_path, kept):
    train = {name: x for name, x in CHALLENGE.items() if "train" in name}
    unpacked(tmp_path, train)
    assert inspect(tmp_path).splits == ["train"]
    unpacked(tmp_path, {kept: CHALLENGE[kept]})
    assert inspect(tmp_path).splits == ["train", "test"]


@given(kept=st.sets(st.sampled_from(sorted(RELEASE))), zip_it=st.booleans())
def test_a_part_of_the_release_is_never_taken_for_a_folder_per_class(
    tmp_path_factory, kept, zip_it
):
    folder = tmp_path_factory.mktemp("part")
    (zipped_by_folder if zip_it else unpacked)(folder, {name: RELEASE[name] for name in kept})
    can_train = any("train_post" in name for name in kept) and any("audio_train" in x for x in kept)
    known = layouts(COLUMNS)
    raw = RawFolder(folder)
    assert bool(known["fsdkaggle2018"].find_splits(raw)) == can_train
    assert known["folder_per_class"].find_splits(raw) == []


def test_two_published_layouts_are_an_error_that_names_both(tmp_path):
    unpacked(tmp_path, ESC50 | CHALLENGE)
    with pytest.raises(InputError, match=r"2 layouts: fsdkaggle2018 \(.*\); esc50 \(") as error:
        inspect(tmp_path)
    assert "--params dataset=fsdkaggle2018" in str(error.value)
    assert inspect(tmp_path, "esc50").dataset == "esc50"


def test_a_folder_per_class_with_a_table_is_an_error_that_names_both(tmp_path):
    unpacked(tmp_path, PER_CLASS | {"labels.csv": "path,label\ndog/1.wav,Bark\n"})
    with pytest.raises(InputError, match=r"may be in 2 layouts: folder_per_class .*; table \("):
        inspect(tmp_path)
    assert inspect(tmp_path, "table").dataset == "table"
    assert inspect(tmp_path, "folder_per_class").dataset == "folder_per_class"


@pytest.mark.parametrize(
    "files",
    [{}, {"a.wav": ""}, {"notes.csv": "day,weather\n1,rain\n", "a.wav": ""}, {"dog/1.wav": ""}],
)
def test_no_layout_is_an_error_that_lists_what_was_looked_for(tmp_path, files):
    unpacked(tmp_path, files)
    with pytest.raises(InputError, match="is in no known layout") as error:
        inspect(tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message
    for name, layout in layouts(COLUMNS).items():
        assert f"{name} ({layout.files})" in message
    assert "--params dataset=" in message
    assert "kedro run --pipelines download" in message


def test_a_link_out_of_a_folder_in_no_layout_is_named(tmp_path):
    unpacked(tmp_path, {f"outside/{name}": x for name, x in PER_CLASS.items()})
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "sounds").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="raw/sounds is a link out of the raw folder: move its"):
        recognise_layout(RawFolder(tmp_path / "raw"), COLUMNS)


def test_every_layout_may_be_named():
    names = Parameters.model_fields["dataset"].annotation.__args__
    assert set(names) == {"auto", *layouts(COLUMNS)}
