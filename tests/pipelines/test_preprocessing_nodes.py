"""Preprocessing of raw folders with defects, on files of a few samples."""

import zipfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.data.synthetic import LABELS, synthesize
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Decoding, Rejection, TableColumns, Trim
from fsat_kedro.pipelines.preprocessing import nodes

NOISE = np.random.default_rng(0).normal(0, 0.1, 3000).astype(np.float32)
COLUMNS = TableColumns(file=None, label=None)


@pytest.fixture
def raw(tmp_path):
    """A folder with clips that are complete, cut off, empty, missing, listed twice and unlisted."""
    clips = tmp_path / "raw" / "audio_train"
    clips.mkdir(parents=True)
    for name in ("complete.wav", "cut.wav", "unlisted.wav"):
        soundfile.write(clips / name, NOISE, 44_100)
    cut = clips / "cut.wav"
    cut.write_bytes(cut.read_bytes()[:3044])
    (clips / "empty.wav").touch()
    (clips.parent / "train.csv").write_text(
        "fname,label\ncomplete.wav,Bark\ncut.wav,Meow\nempty.wav,Bark\nmissing.wav,Bark\ncomplete.wav,Bark\n"
    )
    return clips.parent


def trimmed(raw, *, max_seconds=600, n_jobs=1):
    metadata, unlisted = nodes.read_metadata(str(raw), "fsdkaggle2018", COLUMNS, split="train")
    audio, decode_results = nodes.trim_clips(
        metadata, Decoding(max_seconds=max_seconds), Trim(top_db=60), n_jobs, str(raw)
    )
    return metadata, unlisted, audio, decode_results


def test_every_listed_clip_has_a_decode_result_and_audio_unless_rejected(raw):
    metadata, unlisted, audio, decode_results = trimmed(raw)
    assert decode_results["fname"].tolist() == metadata["fname"].tolist()
    assert decode_results["status"].tolist() == ["ok", "ok", "rejected", "rejected", "rejected"]
    assert decode_results["length"].tolist() == audio.lengths.tolist() == [3000, 1500, 0, 0, 0]
    np.testing.assert_allclose(audio[0], NOISE, atol=2**-15)
    _, _, empty, missing, twice = decode_results["reason"]
    assert decode_results["reason"].tolist()[:2] == ["", ""]
    assert decode_results["warning"].tolist() == [
        "",
        "cut off: 50.0% of what its header says",
        "",
        "",
        "",
    ]
    assert empty == "an empty file"
    assert missing == "listed, but not there"
    assert "line 2" in twice
    assert unlisted == ["unlisted.wav"]


def test_two_processes_give_the_same_results(raw):
    _, _, audio, decode_results = trimmed(raw)
    _, _, audio_2, decode_results_2 = trimmed(raw, n_jobs=2)
    pd.testing.assert_frame_equal(decode_results, decode_results_2)
    np.testing.assert_array_equal(audio.values, audio_2.values)


def test_librosa_is_compiled_before_several_processes_use_it(raw, monkeypatch):
    calls = []
    map_clips = nodes.map_clips
    monkeypatch.setattr(nodes, "compile_librosa", lambda: calls.append("compile"))
    monkeypatch.setattr(
        nodes, "map_clips", lambda *a, **k: calls.append("map") or map_clips(*a, **k)
    )
    trimmed(raw, n_jobs=2)
    trimmed(raw, n_jobs=1)
    assert calls == ["compile", "map", "map"]


def test_a_longer_clip_is_used_in_part_with_a_warning(raw):
    _, _, audio, decode_results = trimmed(raw, max_seconds=0.01)
    assert audio.lengths.tolist() == [441, 441, 0, 0, 0]
    assert decode_results["warning"][0] == "only its first 0.01 s are used"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_an_archive_is_a_rejected_clip(raw, method):
    clip = raw / "audio_train" / "complete.wav"
    archive = raw / "audio_train.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        file.write(clip, "audio_train/complete.wav")
    clip.unlink()
    content = bytearray(archive.read_bytes())
    content[1000:1100] = bytes(100)
    archive.write_bytes(content)
    _, _, _, decode_results = trimmed(raw)
    assert decode_results["status"][0] == "rejected"
    assert decode_results["reason"][0].startswith("not readable from its archive: ")


def test_silence_around_a_clip_is_trimmed(raw):
    soundfile.write(raw / "audio_train" / "complete.wav", np.pad(NOISE, 11_025), 44_100)
    _, _, audio, decode_results = trimmed(raw)
    start, end = decode_results["start"][0], decode_results["end"][0]
    assert 11_025 - 2048 <= start <= 11_025
    assert len(audio[0]) == end - start
    np.testing.assert_allclose(audio[0][11_025 - start :][:3000], NOISE, atol=2**-15)


def test_rejected_clips_and_warnings_are_listed_and_counted(raw):
    metadata, unlisted, _, decode_results = trimmed(raw)
    rejected, warned, counts = nodes.report_clips(
        splits=["train", "test"],
        train_metadata=metadata,
        test_metadata=metadata.drop(columns="correction"),
        train_decode_results=decode_results,
        train_unlisted=unlisted,
        test_decode_results=decode_results[:1],
        test_unlisted=[],
    )
    assert list(rejected) == ["fname", "split", "reason"]
    assert rejected["fname"].tolist() == ["empty.wav", "missing.wav", "complete.wav"]
    assert rejected["split"].tolist() == ["train"] * 3
    assert warned["fname"].tolist() == ["cut.wav"]
    assert list(warned) == ["fname", "split", "warning"]
    assert counts == {
        "train": {"listed": 5, "rejected": 3, "with_warnings": 1, "unlisted": 1},
        "test": {"listed": 1, "rejected": 0, "with_warnings": 0, "unlisted": 0},
    }


def test_accepted_clips_keep_every_row(raw):
    metadata, _, _, decode_results = trimmed(raw)
    clips = nodes.accept_clips(metadata, decode_results, None, Rejection(max_fraction=0.6))
    assert clips["fname"].tolist() == metadata["fname"].tolist()
    assert clips["label"].tolist() == ["Bark", "Meow", "Bark", "Bark", "Bark"]
    assert set(clips) == {
        *("fname", "label", "verified", "usage", "fold", "group", "correction", "note"),
        *("status", "reason", "warning", "start", "end", "length"),
    }


def test_too_many_rejected_clips_are_an_error_with_the_reasons(raw):
    metadata, _, _, decode_results = trimmed(raw)
    with pytest.raises(
        InputError, match=r"3 of 5 clips rejected, .*max_fraction .*not there \(1\)"
    ):
        nodes.accept_clips(metadata, decode_results, None, Rejection(max_fraction=0.59))


def test_corrected_labels_are_counted_and_dropped_clips_are_not_too_many(raw):
    (raw / "label_corrections.csv").write_text("fname,label\ncomplete.wav,\ncut.wav,Bark\n")
    metadata, unlisted, audio, decode_results = trimmed(raw)
    tables = {
        "train_metadata": metadata,
        "train_decode_results": decode_results,
        "train_unlisted": unlisted,
    }
    _, _, counts = nodes.report_clips(splits=["train"], **tables)
    assert counts["train"]["labels_dropped"] == 2  # Both lines of the clip.
    assert counts["train"]["labels_changed"] == 1
    assert audio.lengths.tolist() == [0, 1500, 0, 0, 0]
    # Of five, an empty and a missing one.
    clips = nodes.accept_clips(metadata, decode_results, None, Rejection(max_fraction=0.4))
    assert clips["status"].tolist() == ["rejected", "ok", *["rejected"] * 3]
    with pytest.raises(InputError, match="2 of 5 clips rejected"):
        nodes.accept_clips(metadata, decode_results, None, Rejection(max_fraction=0.39))


def test_the_labels_of_test_clips_are_not_corrected(raw):
    (raw / "audio_test").mkdir()
    soundfile.write(raw / "audio_test" / "cut.wav", NOISE, 44_100)
    (raw / "test_post_competition.csv").write_text("fname,label,usage\ncut.wav,Meow,Public\n")
    (raw / "label_corrections.csv").write_text("fname,label\ncut.wav,Bark\n")
    metadata, _ = nodes.read_metadata(str(raw), "fsdkaggle2018", COLUMNS, split="test")
    assert metadata["label"].tolist() == ["Meow"]


def test_reasons_are_shown_with_escapes():
    results = pd.DataFrame({"status": ["rejected"], "reason": ["two labels: \x1b[31m"]})
    with pytest.raises(InputError, match=r"two labels: \\x1b\[31m \(1\)"):
        nodes.accept_clips(results, results, None, Rejection(max_fraction=0.5))


def write_sounds(folder, names):
    """Write a sound of the demo for each name and label."""
    for seed, (name, label) in enumerate(names.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        soundfile.write(path, synthesize(label, 0.1, rng), 44_100)


def read_and_trim(raw):
    metadata, unlisted = nodes.read_metadata(str(raw), "auto", COLUMNS, split="train")
    audio, decode_results = nodes.trim_clips(
        metadata, Decoding(max_seconds=1), Trim(top_db=60), 1, str(raw.parent)
    )
    assert len(audio) == len(metadata)
    assert decode_results["fname"].is_unique
    assert unlisted == []
    return nodes.accept_clips(metadata, decode_results, None, Rejection(max_fraction=0))


def test_a_folder_per_class_is_read_and_its_labels_are_corrected(tmp_path, caplog):
    first, second = LABELS[:2]
    names = {f"{label}/{i}.wav": label for label in (first, second) for i in range(2)}
    write_sounds(tmp_path / "raw", names)
    corrections = f"fname,label\n{first}/1.wav,{second}\n"
    (tmp_path / "raw" / "label_corrections.csv").write_text(corrections)
    with caplog.at_level("INFO"):
        clips = read_and_trim(tmp_path / "raw")
    assert clips["fname"].tolist() == sorted(names)
    expected = {**names, f"{first}/1.wav": second}
    assert dict(zip(clips["fname"], clips["label"], strict=True)) == expected
    assert "layout folder_per_class, train: 4 clips of 2 labels" in caplog.text


def test_the_folds_and_recordings_of_urbansound8k_are_read_and_counted(tmp_path, caplog):
    rows = [(f"{i // 2}-0-0-{i % 2}.wav", i // 2, i // 2 % 3 + 1, LABELS[i % 3]) for i in range(12)]
    table = pd.DataFrame(rows, columns=["slice_file_name", "fsID", "fold", "class"])
    write_sounds(tmp_path / "raw", {f"audio/fold{x[2]}/{x[0]}": x[3] for x in rows})
    (tmp_path / "raw" / "metadata").mkdir()
    table.to_csv(tmp_path / "raw" / "metadata" / "UrbanSound8K.csv", index=False)
    with caplog.at_level("INFO"):
        clips = read_and_trim(tmp_path / "raw")
    assert clips["fname"].tolist() == table["slice_file_name"].tolist()
    assert clips["fold"].tolist() == table["fold"].tolist()
    assert clips.groupby("group").size().tolist() == [2] * 6
    assert "12 clips of 3 labels in 3 folds, 6 groups" in caplog.text
    results = pd.DataFrame({"status": ["ok"], "reason": "", "warning": "", "fname": "a"})
    _, _, counts = nodes.report_clips(
        splits=["train"], train_metadata=clips, train_decode_results=results, train_unlisted=[]
    )
    assert counts["train"]["own_folds"] == 3


def test_a_folder_in_no_layout_is_an_error_when_it_is_read(tmp_path):
    with pytest.raises(InputError, match="is in no known layout"):
        nodes.read_metadata(str(tmp_path), "auto", COLUMNS, split="train")
