"""Trimming and features of a few short clips, one of them unusable."""

import zipfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Lengths, LogMel, Pca, Trim
from fsat_kedro.pipelines.features import nodes as features
from fsat_kedro.pipelines.preprocessing.nodes import trim_clips
from fsat_kedro.ragged import RaggedArray

LOG_MEL = LogMel(sample_rate=22050, n_fft=1764, hop_length=220, n_mels=64)


@pytest.fixture
def metadata(tmp_path, rng):
    """Noise, garbage, a listed clip that is not there, and silence around noise."""
    noise = rng.normal(0, 0.1, 11025)
    soundfile.write(tmp_path / "noise.wav", noise, 44100)
    (tmp_path / "garbage.wav").write_bytes(b"garbage")
    soundfile.write(tmp_path / "padded.wav", np.pad(noise, 11025), 44100)
    names = ["noise.wav", "garbage.wav", "absent.wav", "padded.wav"]
    locations = [None if name == "absent.wav" else str(tmp_path / name) for name in names]
    reasons = ["listed, but not there" if location is None else "" for location in locations]
    return pd.DataFrame(
        {"fname": names, "label": "Wind", "location": locations, "reason": reasons},
        # As after rows were left out.
        index=[7, 3, 9, 1],
    )


def test_every_clip_keeps_its_row_with_status_reason_and_kept_interval(metadata, tmp_path):
    audio, clips = trim_clips(metadata, Trim(top_db=60), n_jobs=1, data_dir=str(tmp_path))
    assert clips["fname"].tolist() == metadata["fname"].tolist()
    assert "location" not in clips
    assert clips["status"].tolist() == ["ok", "rejected", "rejected", "ok"]
    assert clips["reason"].tolist()[::3] == ["", ""]
    assert clips["reason"].iloc[1].startswith("not readable as sound")
    assert clips["reason"].iloc[2] == "listed, but not there"
    assert clips["length"].tolist() == audio.lengths.tolist()
    assert (clips["end"] - clips["start"]).tolist() == audio.lengths.tolist()
    assert clips["length"].tolist()[:3] == [11025, 0, 0]
    assert 11025 - 2048 <= clips["start"].iloc[3] <= 11025
    offset = 11025 - clips["start"].iloc[3]
    np.testing.assert_array_equal(audio[3][offset : offset + 11025], audio[0])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_an_archive_is_a_rejected_clip(tmp_path, rng, method):
    soundfile.write(tmp_path / "noise.wav", rng.normal(0, 0.1, 11025), 44100)
    path = tmp_path / "audio_train.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.write(tmp_path / "noise.wav", "noise.wav")
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(100)
    path.write_bytes(content)
    metadata = pd.DataFrame(
        {"fname": ["noise.wav"], "location": [f"{path}//noise.wav"], "reason": [""]}
    )
    _, clips = trim_clips(metadata, Trim(top_db=60), n_jobs=1, data_dir=str(tmp_path))
    assert clips["status"].tolist() == ["rejected"]
    assert clips["reason"].iloc[0].startswith("not readable from its archive: ")


def test_log_mels_are_frames_by_bands_and_a_rejected_clip_has_no_frame(tmp_path, rng):
    waves = rng.normal(0, 0.1, 11025).astype(np.float32)
    audio = RaggedArray(waves, np.array([0, 4410, 4410, 11025]))
    mels = features.compute_log_mels(audio, LOG_MEL, n_jobs=1, data_dir=str(tmp_path))
    assert mels.lengths.tolist() == [1 + 2205 // 220, 0, 1 + 3308 // 220]
    assert mels.values.shape[1] == 64


def test_statistics_are_the_range_and_the_percentiles_of_usable_clips():
    values = np.array([[-80.0, 3.0]] * 50 + [[-20.0, 12.0]] * 50, np.float32)
    lengths = [10, 0, 20, 30, 0, 40]
    mels = RaggedArray(values, np.cumsum([0, *lengths]))
    statistics = features.fit_mel_statistics(mels, Lengths(percentiles=(0, 100)))
    assert statistics == {"minimum": -80, "maximum": 12, "shortest": 10, "longest": 40}


def test_no_usable_clip_is_an_error():
    mels = RaggedArray(np.zeros((0, 64), np.float32), np.array([0, 0, 0]))
    with pytest.raises(InputError, match="no usable training clip"):
        features.fit_mel_statistics(mels, Lengths(percentiles=(25, 75)))


def test_a_rejected_clip_has_no_part_in_the_projection_and_none_of_its_own(rng):
    summary = pd.DataFrame(rng.normal(size=(9, 5)))
    whole = features.fit_summary_projector(summary, Pca(n_components=3))
    expected = features.project_summary_features(summary, whole)
    with_rejected = pd.concat([summary[:4], pd.DataFrame(np.full((1, 5), np.nan)), summary[4:]])
    projector = features.fit_summary_projector(with_rejected, Pca(n_components=3))
    components = features.project_summary_features(with_rejected, projector)
    assert components.dtype == np.float32
    assert np.isnan(components[4]).all()
    np.testing.assert_allclose(np.delete(components, 4, axis=0), expected, rtol=1e-5)


def test_clips_that_are_all_rejected_project_to_nothing(rng):
    projector = features.fit_summary_projector(
        pd.DataFrame(rng.normal(size=(9, 5))), Pca(n_components=3)
    )
    components = features.project_summary_features(pd.DataFrame(np.full((2, 5), np.nan)), projector)
    assert components.shape == (2, 3)
    assert np.isnan(components).all()
