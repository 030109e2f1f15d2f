import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from scipy import signal

from fsat_kedro.data import synthetic

SR = synthetic.SAMPLE_RATE
COUNTS = {"n_train": 18, "n_test": 10}


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def clip_digests(folder):
    """Return the digests of the clips that are not empty."""
    return [
        digest
        for name, digest in digests(folder).items()
        if name.endswith(".wav") and sf.info(folder / name).frames
    ]


def read_csv(path):
    return pd.read_csv(path, keep_default_na=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    return folder, synthetic.write_synthetic_dataset(folder, **COUNTS, seed=3)


def sound(label, duration=2.0, seed=0):
    return synthetic.synthesize(label, duration, np.random.default_rng(seed))


def dominant_frequencies(wave):
    """Return the strongest frequency of each frame of about 46 ms, in Hz."""
    frequencies, _, power = signal.spectrogram(wave, SR, nperseg=2048)
    return frequencies[power.argmax(axis=0)]


def flatness(wave):
    """Return geometric over arithmetic mean of the power spectrum to 10 kHz, 1 for white noise."""
    frequencies, power = signal.welch(wave, SR, nperseg=2048)
    power = power[(frequencies > 50) & (frequencies < 10_000)] + 1e-20
    return np.exp(np.log(power).mean()) / power.mean()


# Single sounds


@pytest.mark.parametrize("label", synthetic.LABELS)
@pytest.mark.parametrize("duration", [0.15, 1.3])
def test_a_sound_has_its_length_and_a_bounded_peak(label, duration):
    wave = sound(label, duration)
    assert wave.shape == (round(duration * SR),)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("label", synthetic.LABELS)
def test_sounds_of_a_class_vary_by_seed_only(label):
    np.testing.assert_array_equal(sound(label, seed=1), sound(label, seed=1))
    assert np.abs(np.corrcoef(sound(label, seed=1), sound(label, seed=2))[0, 1]) < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_siren_sweeps_and_a_flute_does_not(seed):
    siren = dominant_frequencies(sound("Siren", 0.4, seed))
    flute = dominant_frequencies(sound("Flute", 0.4, seed))[2:-1]
    assert siren.max() > 1.3 * siren.min()
    # A vibrato of 40 cents is less than one bin of 21.5 Hz in each direction.
    assert flute.max() - flute.min() < 3 * SR / 2048


@pytest.mark.parametrize("label", ["Bell", "Plucked_string"])
@pytest.mark.parametrize("seed", range(5))
def test_struck_sounds_decay(label, seed):
    first, second = np.split(sound(label, seed=seed), 2)
    assert np.square(first).sum() > 2 * np.square(second).sum()


@pytest.mark.parametrize("seed", range(5))
def test_wind_is_flatter_than_a_flute(seed):
    assert flatness(sound("Wind", seed=seed)) > 10 * flatness(sound("Flute", seed=seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_drum_is_low_and_a_chirp_is_high(seed):
    frequencies, drum = signal.welch(sound("Drum", seed=seed), SR, nperseg=8192)
    _, chirp = signal.welch(sound("Chirp", seed=seed), SR, nperseg=8192)
    assert frequencies[drum.argmax()] < 300
    assert 1000 < frequencies[chirp.argmax()] < 8000


@pytest.mark.parametrize("seed", range(5))
def test_a_plucked_string_repeats_itself_and_wind_does_not(seed):
    def max_autocorrelation(wave):
        late = wave[SR // 4 :]  # After the noise of the pluck.
        lags = range(SR // 600, SR // 70)
        return max(np.corrcoef(late[:-lag], late[lag:])[0, 1] for lag in lags)

    assert max_autocorrelation(sound("Plucked_string", 0.5, seed)) > 0.9
    assert max_autocorrelation(sound("Wind", 0.5, seed)) < 0.6


@pytest.mark.parametrize(
    ("label", "duration", "message"), [("Trombone", 1.0, "Trombone"), ("Bell", 0.0, "duration")]
)
def test_invalid_arguments_are_an_error(label, duration, message):
    with pytest.raises(ValueError, match=message):
        sound(label, duration)


# The drawn clips


def test_fractions_of_verified_and_of_wrong_labels():
    plan = synthetic.plan_clips("train", 8000, seed=0)
    wrong = plan["label"] != plan["sound"]
    assert plan["verified"].mean() == pytest.approx(0.4, abs=0.02)
    assert not wrong[plan["verified"]].any()
    assert wrong[~plan["verified"]].mean() == pytest.approx(0.15, abs=0.02)
    assert set(plan.loc[wrong, "sound"]) == set(synthetic.LABELS)


def test_labels_of_test_clips_are_correct():
    plan = synthetic.plan_clips("test", 400, seed=0)
    assert (plan["label"] == plan["sound"]).all()


def test_file_names_are_unique():
    plans = [synthetic.plan_clips(split, 5000, seed=1) for split in ("train", "test")]
    assert pd.concat(plans)["fname"].is_unique


# The data set


def test_layout_and_columns(dataset):
    folder, clips = dataset
    train, test = read_csv(folder / synthetic.TRAIN_CSV), read_csv(folder / synthetic.TEST_CSV)
    assert list(train) == ["fname", "label", "manually_verified", "freesound_id", "license"]
    assert list(test) == ["fname", "label", "usage", "freesound_id", "license"]
    assert len(train) == 18
    assert len(test) == 10 + 3
    assert train["fname"].str.fullmatch(r"[0-9a-f]{8}\.wav").all()
    assert set(train["manually_verified"]) == {0, 1}
    assert test["usage"].value_counts().to_dict() == {"Private": 8, "Public": 2, "Ignored": 3}
    for split, table in [("train", train), ("test", test)]:
        present = {path.name for path in (folder / synthetic.AUDIO_FOLDERS[split]).iterdir()}
        assert present == set(table["fname"]) == set(clips.loc[clips["split"] == split, "fname"])
    listed = pd.concat([train, test]).set_index("fname")["label"].to_dict()
    assert clips.set_index("fname")["label"].to_dict() == listed
    assert json.loads((folder / synthetic.MARKER).read_text())["seed"] == 3
    assert len(list(folder.iterdir())) == 4


def test_rows_are_not_sorted_by_label(dataset):
    labels = read_csv(dataset[0] / synthetic.TRAIN_CSV)["label"]
    assert not labels.is_monotonic_increasing
    assert (labels == labels.shift()).sum() < len(labels) / 2


def test_class_sizes_differ_by_at_most_one(dataset):
    _, clips = dataset
    for _, table in clips[clips["label"] != "None"].groupby("split"):
        counts = table["label"].value_counts().reindex(synthetic.LABELS, fill_value=0)
        assert counts.max() - counts.min() <= 1


def test_three_test_clips_are_empty_files(dataset):
    folder, clips = dataset
    test = read_csv(folder / synthetic.TEST_CSV)
    ignored = test[test["usage"] == "Ignored"]
    frames = {
        path.name: sf.info(path).frames
        for path in (folder / synthetic.AUDIO_FOLDERS["test"]).iterdir()
    }
    assert {name for name, n in frames.items() if n == 0} == set(ignored["fname"])
    assert set(ignored["label"]) == {"None"}
    assert (clips["label"] == "None").sum() == 3


def test_clips_are_16_bit_with_silent_ends_and_a_bounded_peak(dataset):
    folder, clips = dataset
    for clip in clips[clips["label"] != "None"].itertuples():
        path = folder / synthetic.AUDIO_FOLDERS[clip.split] / clip.fname
        info = sf.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (SR, 1, "PCM_16")
        assert 0.3 - 1e-4 <= info.duration <= 4.0
        wave, _ = sf.read(path)
        end = len(wave) // 20 - 1
        assert 0.2 < np.abs(wave).max() < 0.91
        assert wave[:end].std() < 1e-4
        assert wave[-end:].std() < 1e-4
        assert wave[len(wave) // 5 : -len(wave) // 5].std() > 1e-3


def test_the_same_seed_writes_the_same_bytes(dataset, tmp_path):
    synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=3)
    assert digests(tmp_path) == digests(dataset[0])


def test_another_seed_writes_other_sounds(dataset, tmp_path):
    synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=4)
    assert not set(clip_digests(tmp_path)) & set(clip_digests(dataset[0]))


def test_more_clips_do_not_change_the_first_ones(dataset, tmp_path):
    synthetic.write_synthetic_dataset(tmp_path, n_train=20, n_test=11, seed=3)
    wide = digests(tmp_path)
    audio = {name: digest for name, digest in digests(dataset[0]).items() if name.endswith(".wav")}
    assert {name: wide.get(name) for name in audio} == audio


# Existing files


def test_an_earlier_data_set_is_replaced(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    synthetic.write_synthetic_dataset(tmp_path, n_train=8, n_test=8, seed=0)
    synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=3)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "notes.txt").unlink()
    assert digests(tmp_path) == digests(dataset[0])


@pytest.mark.parametrize("after_a_call", [False, True])
@pytest.mark.parametrize(
    "name", [f"{synthetic.AUDIO_FOLDERS['train']}/00044347.wav", synthetic.TEST_CSV]
)
def test_other_data_is_an_error_and_stays(tmp_path, name, after_a_call):
    if after_a_call:
        synthetic.write_synthetic_dataset(tmp_path, n_train=8, n_test=8, seed=0)
        name = name.replace("test_post", "my")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    before = digests(tmp_path)
    with pytest.raises(ValueError, match=r"another folder") as error:
        synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=0)
    assert str(tmp_path) in str(error.value)
    assert digests(tmp_path) == before


def test_another_marker_file_is_an_error_and_stays(tmp_path):
    (tmp_path / synthetic.MARKER).write_text("[]")
    with pytest.raises(ValueError, match="not written by the demo"):
        synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=0)
    assert (tmp_path / synthetic.MARKER).read_text() == "[]"


def test_an_interrupted_call_leaves_nothing_that_looks_complete(dataset, tmp_path, monkeypatch):
    calls = iter(range(5))

    def interrupt(*args, _write=sf.write, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        _write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sf, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=3)
    assert not list(tmp_path.glob("FSDKaggle2018.*"))
    synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=3)
    assert digests(tmp_path) == digests(dataset[0])


def test_tables_are_written_last(dataset, tmp_path, monkeypatch):
    replace = synthetic.Path.replace

    def interrupt(path, target):
        if path.name == synthetic.META_FOLDER:
            raise KeyboardInterrupt
        return replace(path, target)

    synthetic.write_synthetic_dataset(tmp_path, n_train=8, n_test=8, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic.Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=3)
    assert not (tmp_path / synthetic.META_FOLDER).exists()
    synthetic.write_synthetic_dataset(tmp_path, **COUNTS, seed=3)
    assert digests(tmp_path) == digests(dataset[0])


@pytest.mark.parametrize("counts", [{"n_train": 7}, {"n_test": 0}])
def test_fewer_clips_than_classes_is_an_error(tmp_path, counts):
    with pytest.raises(ValueError, match=r"expected at least 8"):
        synthetic.write_synthetic_dataset(tmp_path, **{**COUNTS, **counts}, seed=0)
