"""Features of a few short clips, one of them rejected."""

import numpy as np
import pandas as pd
import pytest

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import CropLengths, LogMel, Pca
from fsat_kedro.pipelines.features import nodes

LOG_MEL = LogMel(kind="librosa", sample_rate=22050, n_fft=1764, hop_length=220, n_mels=64)


def test_log_mels_are_frames_by_bands_without_frames_for_a_rejected_clip(tmp_path, rng):
    waves = rng.normal(0, 0.1, 11025).astype(np.float32)
    audio = RaggedArray(waves, np.array([0, 4410, 4410, 11025]))
    clips = pd.DataFrame({"fname": ["a.wav", "b.wav", "c.wav"]})
    mels = nodes.compute_log_mels(audio, clips, LOG_MEL, n_jobs=1, spool_dir=str(tmp_path))
    assert mels.lengths.tolist() == [1 + 2205 // 220, 0, 1 + 3308 // 220]
    assert mels.values.shape[1] == 64


def clips_of(audio):
    return pd.DataFrame({"fname": [f"{index}.wav" for index in range(len(audio))]})


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_names_the_clip(tmp_path, n_jobs, rng):
    waves = rng.normal(0, 0.1, 8820).astype(np.float32)
    waves[5000] = np.nan
    audio = RaggedArray(waves, np.array([0, 4410, 8820]))
    with pytest.raises(RuntimeError, match=r"clip 1\.wav: "):
        nodes.compute_log_mels(audio, clips_of(audio), LOG_MEL, n_jobs, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_two_processes_compute_the_same_features_of_saved_audio(tmp_path, rng):
    waves = rng.normal(0, 0.1, 44100).astype(np.float32)
    dataset = RaggedDataset(filepath=str(tmp_path / "audio"))
    dataset.save(RaggedArray(waves, np.array([0, 1, 1, 11025, 30000, 44100])))
    audio = dataset.load()
    one, two = (
        (
            nodes.compute_log_mels(audio, clips_of(audio), LOG_MEL, n_jobs, str(tmp_path)),
            nodes.compute_summary_features(audio, clips_of(audio), n_jobs),
        )
        for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(one[0].values, two[0].values)
    np.testing.assert_array_equal(one[0].offsets, two[0].offsets)
    pd.testing.assert_frame_equal(one[1], two[1])
    assert one[1].isna().all(axis=1).tolist() == [False, True, False, False, False]


def test_statistics_are_the_range_and_the_percentiles_of_usable_clips():
    values = np.array([[-80.0, 3.0]] * 110 + [[-20.0, 12.0]] * 110, np.float32)
    lengths = [40, 0, 50, 60, 0, 70]
    mels = RaggedArray(values, np.cumsum([0, *lengths]))
    statistics = nodes.fit_mel_statistics(
        mels, CropLengths(percentiles=(0, 100), seconds=None), LOG_MEL
    )
    lengths = {"shortest": 40, "longest": 70}
    assert statistics == {"minimum": -80, "maximum": 12, "bounded": True, **lengths}


def test_the_range_of_kaldi_is_that_of_its_encoders():
    mels = RaggedArray(np.full((40, 128), -11.5, np.float32), np.array([0, 40]))
    kaldi = LogMel(kind="kaldi", sample_rate=32_000, n_fft=1024, hop_length=320, n_mels=128)
    statistics = nodes.fit_mel_statistics(
        mels, CropLengths(percentiles=(0, 100), seconds=None), kaldi
    )
    lengths = {"shortest": 40, "longest": 40}
    assert statistics == {"minimum": -4.5, "maximum": 0.5, "bounded": False, **lengths}


def test_no_usable_clip_is_an_error():
    mels = RaggedArray(np.zeros((0, 64), np.float32), np.array([0, 0, 0]))
    with pytest.raises(InputError, match="no usable training clip"):
        nodes.fit_mel_statistics(mels, CropLengths(percentiles=(25, 75), seconds=None), LOG_MEL)


def test_a_rejected_clip_does_not_affect_the_projection_and_has_no_components(rng):
    summary = pd.DataFrame(rng.normal(size=(9, 5)))
    projector = nodes.fit_summary_projector(summary, Pca(n_components=3))
    expected = nodes.project_summary_features(summary, projector)
    with_rejected = pd.concat([summary[:4], pd.DataFrame(np.full((1, 5), np.nan)), summary[4:]])
    projector = nodes.fit_summary_projector(with_rejected, Pca(n_components=3))
    components = nodes.project_summary_features(with_rejected, projector)
    assert components.dtype == np.float32
    assert np.isnan(components[4]).all()
    np.testing.assert_allclose(np.delete(components, 4, axis=0), expected, rtol=1e-5)


def test_components_of_training_clips_stay_and_those_of_other_clips_are_bounded(rng):
    summary = pd.DataFrame(rng.normal(size=(9, 5)).astype(np.float32))
    projector = nodes.fit_summary_projector(summary, Pca(n_components=3))
    components = nodes.project_summary_features(summary, projector)
    unbounded = projector.unbounded(summary.to_numpy(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(components, unbounded)
    others = nodes.project_summary_features(summary * 100, projector)
    assert (others >= components.min(axis=0)).all()
    assert (others <= components.max(axis=0)).all()


def test_components_of_only_rejected_clips_are_nan(rng):
    projector = nodes.fit_summary_projector(
        pd.DataFrame(rng.normal(size=(9, 5))), Pca(n_components=3)
    )
    components = nodes.project_summary_features(pd.DataFrame(np.full((2, 5), np.nan)), projector)
    assert components.shape == (2, 3)
    assert np.isnan(components).all()
