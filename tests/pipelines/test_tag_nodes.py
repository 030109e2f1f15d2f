"""Nodes of pipeline tag, with a tagger that only opens the files."""

import pandas as pd
import pytest

from fsat_kedro.data.raw_files import open_raw_file
from fsat_kedro.errors import InputError
from fsat_kedro.inference.timeline import Timeline
from fsat_kedro.pipelines.tag.nodes import list_sounds, tag_recordings, tag_sounds


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


def test_recordings_of_a_folder_share_their_tables(monkeypatch):
    segments = pd.DataFrame({"start": [0.0], "end": [1.0], "label": ["Bark"], "probability": [0.9]})

    def tag_recording(tagger, sound, settings, *, n_jobs):
        if sound.reason:
            return Timeline(segments[:0], segments[:0], reason=sound.reason)
        return Timeline(segments[["start", "end"]], segments, warning="cut off")

    monkeypatch.setattr("fsat_kedro.pipelines.tag.nodes.tag_recording", tag_recording)
    rows = [("a.wav", "/x/a.wav", ""), ("b.wav", "/x/b.wav", "behind"), ("c.wav", "/x/c.wav", "")]
    sounds = pd.DataFrame(rows, columns=["fname", "path", "reason"])
    tracks, recordings, windows, found = tag_recordings(None, sounds, None, 1)
    assert tracks == dict.fromkeys(["a.wav", "c.wav"], "0.000000\t1.000000\tBark\n")
    assert recordings.to_numpy().tolist() == [
        ["a.wav", 1, "", "cut off"],
        ["b.wav", 0, "behind", ""],
        ["c.wav", 1, "", "cut off"],
    ]
    assert found["fname"].tolist() == windows["fname"].tolist() == ["a.wav", "c.wav"]
    assert found["label"].tolist() == ["Bark", "Bark"]
