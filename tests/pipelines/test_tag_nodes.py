"""Nodes of pipeline tag, with a tagger that only opens the files."""

import pandas as pd
import pytest

from fsat_kedro.data.raw_files import open_raw_file
from fsat_kedro.errors import InputError
from fsat_kedro.pipelines.tag.nodes import list_sounds, tag_sounds


class OpeningTagger:
    def tag(self, sounds, *, n_jobs, spool_dir):
        contents = []
        for sound in sounds:
            with open_raw_file(sound.content) as file:
                contents.append(file.read().decode())
        names = [sound.name for sound in sounds]
        return pd.DataFrame({"fname": names, "tag_1": contents, "reason": ""})


def test_a_folder_with_names_that_are_not_utf_8_is_tagged(tmp_path):
    folder = tmp_path / "s\udcff"
    (folder / "d\udce9").mkdir(parents=True)
    for index, name in enumerate(["d\udce9/\x1b[31m.wav", "bark\udcff.wav"]):
        (folder / name).write_text(f"sound {index}")
    tags = tag_sounds(OpeningTagger(), list_sounds(str(folder)), 1, str(tmp_path))
    assert tags["fname"].tolist() == ["bark\\udcff.wav", "d\\udce9/\\x1b[31m.wav"]
    assert tags["tag_1"].tolist() == ["sound 1", "sound 0"]
    tags.to_csv(tmp_path / "tags.csv")


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="tag_dir is not set"):
        list_sounds(None)
    with pytest.raises(InputError, match="has no files"):
        list_sounds(str(tmp_path))
