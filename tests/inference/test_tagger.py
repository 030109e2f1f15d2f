"""The ensemble as a tagger, with untrained networks of random weights."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.audio.summary_features import feature_names, fit_projector
from fsat_kedro.data.synthetic import LABELS, synthesize
from fsat_kedro.datasets.tagger_dataset import TaggerDataset
from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import Sound, Tagger, TaggerSettings, weight_files
from fsat_kedro.parameters import Inference, Model, Momentum

SETTINGS = TaggerSettings(
    decoding={"max_seconds": 2},
    trim={"top_db": 60},
    log_mel={"sample_rate": 22050, "n_fft": 1764, "hop_length": 220, "n_mels": 32},
    model=Model(
        weights=None, width=0.35, momentum=Momentum(backbone=0.9, others=0.9), precision="float32"
    ),
    test_time_crops={"n_lengths": 2, "crops_per_length": 2, "subset": "all", "batch_size": 4},
    inference={"runtime": "keras"},
    seed=1,
    n_folds=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the files of a training."""
    import keras

    from fsat_kedro.modelling.networks import build_network

    folder = tmp_path_factory.mktemp("06_models")
    rng = np.random.default_rng(0)
    projector = fit_projector(rng.normal(size=(6, len(feature_names()))), n_components=5)
    (folder / "projector.pkl").write_bytes(pickle.dumps(projector))
    statistics = {"minimum": -80.0, "maximum": 40.0, "shortest": 32, "longest": 64}
    (folder / "mel_statistics.json").write_text(json.dumps(statistics))
    (folder / "classes.json").write_text(json.dumps({"labels": ["Bark", "Knock", "Meow", "Purr"]}))
    keras.utils.set_random_seed(0)
    network = build_network(SETTINGS.model, weights=None, n_mels=32, n_classes=4, n_components=5)
    for file in weight_files(2):
        network.set_weights([weights + rng.random() / 10 for weights in network.get_weights()])
        (folder / file).parent.mkdir()
        network.save_weights(folder / file)
    TaggerDataset(filepath=str(folder / "tagger.json")).save(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def tagger(folder):
    return TaggerDataset(filepath=str(folder / "tagger.json")).load()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Write three sounds of different length, and two files without sound."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, seconds in (("a.wav", 0.2), ("b.wav", 0.5), ("c.flac", 0.9)):
        soundfile.write(folder / name, synthesize(LABELS[0], seconds, rng), 44_100)
    (folder / "empty.wav").touch()
    (folder / "text.txt").write_text("no sound")
    names = ("a.wav", "empty.wav", "b.wav", "text.txt", "c.flac")
    return [Sound(name, str(folder / name)) for name in names]


@pytest.fixture(scope="module")
def tags(tagger, sounds):
    return tagger.tag(sounds)


def test_three_tags_come_with_their_probabilities_best_first(tagger, sounds, tags):
    probabilities = tagger.probabilities(sounds)
    assert tags["fname"].tolist() == [sound.name for sound in sounds]
    usable = tags["reason"] == ""
    assert usable.tolist() == [True, False, True, False, True]
    np.testing.assert_allclose(probabilities[usable].sum(axis=1), 1)
    for row, expected in zip(tags[usable].itertuples(), probabilities[usable], strict=True):
        order = np.argsort(-expected)[:3]
        assert [row.tag_1, row.tag_2, row.tag_3] == [tagger.labels[index] for index in order]
        found = [row.probability_1, row.probability_2, row.probability_3]
        np.testing.assert_allclose(found, expected[order], rtol=1e-5)


def test_a_rejected_sound_has_a_reason_and_no_tags(tags):
    empty, text = tags["reason"][[1, 3]]
    assert empty == "an empty file"
    assert text.startswith("not readable as sound")
    assert tags.loc[[1, 3], [f"tag_{rank}" for rank in (1, 2, 3)]].isna().all(axis=None)
    assert tags.loc[[1, 3], [f"probability_{rank}" for rank in (1, 2, 3)]].isna().all(axis=None)


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2], [0, 0, 2, 2, 4], [1, 4]])
def test_the_tags_of_a_sound_do_not_depend_on_other_sounds(tagger, sounds, tags, order):
    pd.testing.assert_frame_equal(
        tagger.tag([sounds[index] for index in order]),
        tags.iloc[order].reset_index(drop=True),
        rtol=1e-4,
    )


def test_the_bytes_of_a_file_get_the_tags_of_the_file(tagger, sounds, tags):
    found = tagger.tag([Sound("b.wav", Path(sounds[2].content).read_bytes())])
    pd.testing.assert_frame_equal(found, tags.iloc[[2]].reset_index(drop=True), rtol=1e-4)


def test_openvino_gives_the_same_tags_in_every_call(folder, sounds, tags, tmp_path):
    pytest.importorskip("openvino")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = SETTINGS.model_copy(update={"inference": Inference(runtime="openvino")})
    TaggerDataset(filepath=str(tmp_path / "tagger.json")).save(settings)
    tagger = Tagger.load(tmp_path)
    for _ in range(2):
        pd.testing.assert_frame_equal(tagger.tag(sounds), tags, rtol=1e-4)


def test_rejected_sounds_need_no_networks(folder, sounds):
    tagger = Tagger.load(folder)
    assert (tagger.tag([sounds[1], sounds[3]])["reason"] != "").all()


def test_a_sound_with_a_reason_is_not_read(tagger):
    (reason,) = tagger.tag([Sound("x.wav", "nowhere/x.wav", "behind a link")])["reason"]
    assert reason == "behind a link"


def test_a_missing_or_incomplete_ensemble_is_refused_with_what_is_missing(folder, tmp_path):
    with pytest.raises(InputError, match=r"no trained ensemble in .*tagger.json is missing"):
        Tagger.load(tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / weight_files(2)[1]).unlink()
    with pytest.raises(InputError, match=r"incomplete: fold_2/mel_pca.weights.h5 missing"):
        Tagger.load(tmp_path)


def test_settings_of_another_version_are_refused_with_a_remedy(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tagger.json").read_text())
    settings["views"] = settings.pop("test_time_crops")
    (tmp_path / "tagger.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"another version .* kedro run --nodes .*describe_tagger"):
        Tagger.load(tmp_path)
