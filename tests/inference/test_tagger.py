"""The ensemble as a tagger, with untrained tiny networks of random weights."""

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from fsat_kedro.audio.projection import fit_projector
from fsat_kedro.audio.summary_features import summary_features
from fsat_kedro.data.synthetic import LABELS, synthesize
from fsat_kedro.datasets import ProjectorDataset, TaggerDataset
from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import (
    Sound,
    Tagger,
    TaggerSettings,
    extract_features,
    parts,
    weight_files,
)
from fsat_kedro.parameters import Inference

WAVES = {
    name: synthesize(LABELS[0], seconds, np.random.default_rng(0))
    for name, seconds in (("a.wav", 0.2), ("b.wav", 0.5), ("c.flac", 0.9))
}


@pytest.fixture(scope="module", autouse=True)
def _with_tiny_backbone(tiny_backbone):
    with tiny_backbone():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tagger_settings, _with_tiny_backbone):
    """Write the files of a training."""
    import keras

    from fsat_kedro.modelling.networks import build_network

    folder = tmp_path_factory.mktemp("06_models")
    rng = np.random.default_rng(0)
    waves = [*WAVES.values(), *(synthesize(label, 0.5, rng) for label in LABELS[1:6])]
    projector = fit_projector(np.float64([*map(summary_features, waves)]), n_components=5)
    ProjectorDataset(filepath=str(folder / "projector.npz")).save(projector)
    statistics = {"minimum": -80.0, "maximum": 40.0, "shortest": 32, "longest": 64}
    (folder / "mel_statistics.json").write_text(json.dumps(statistics))
    (folder / "classes.json").write_text(json.dumps({"labels": ["Bark", "Knock", "Meow", "Purr"]}))
    keras.utils.set_random_seed(0)
    network = build_network(
        tagger_settings.model, weights=None, n_mels=32, n_classes=4, n_components=5
    )
    for file in weight_files(2):
        classes = network.get_layer("classes")
        classes.set_weights([rng.normal(0, 2, weights.shape) for weights in classes.get_weights()])
        (folder / file).parent.mkdir()
        network.save_weights(folder / file)
    TaggerDataset(filepath=str(folder / "tagger.json")).save(tagger_settings)
    return folder


@pytest.fixture(scope="module")
def tagger(folder):
    return TaggerDataset(filepath=str(folder / "tagger.json")).load()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Write three sounds of different length, and two files without sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, wave in WAVES.items():
        soundfile.write(folder / name, wave, 44_100)
    (folder / "empty.wav").touch()
    (folder / "text.txt").write_text("no sound")
    names = ("a.wav", "empty.wav", "b.wav", "text.txt", "c.flac")
    return [Sound(name, str(folder / name)) for name in names]


@pytest.fixture(scope="module")
def tags(tagger, sounds):
    return tagger.tag(sounds)


def test_three_tags_come_with_their_probabilities_best_first(tagger, sounds, tags):
    probabilities = tagger.predict(sounds).probabilities
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


def copy_with_openvino(folder, copy):
    """Copy an ensemble, with OpenVINO as the runtime of its settings."""
    shutil.copytree(folder, copy)
    describe(copy, Tagger.load(folder).settings, inference=Inference(runtime="openvino"))
    return copy


def describe(folder, settings, **changes):
    """Write `tagger.json` anew, with changes to the settings."""
    kept = settings.model_copy(update=changes).model_dump(exclude={"digests"})
    TaggerDataset(filepath=str(folder / "tagger.json")).save(TaggerSettings(**kept))


def test_openvino_gives_the_same_tags_in_every_call(folder, sounds, tags, tmp_path):
    pytest.importorskip("openvino")
    tagger = Tagger.load(copy_with_openvino(folder, tmp_path / "models"))
    for _ in range(2):
        pd.testing.assert_frame_equal(tagger.tag(sounds), tags, rtol=1e-4)


TAG_WITHOUT_KERAS = """
import sys
from pathlib import Path
from fsat_kedro.inference.tagger import Sound, Tagger
folder, *paths = map(Path, sys.argv[1:])
tags = Tagger.load(folder).tag([Sound(path.name, str(path)) for path in paths])
assert "keras" not in sys.modules and "tensorflow" not in sys.modules
print(tags.to_csv(index=False))
"""


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    """Load a copy of the ensemble, and convert its networks."""
    pytest.importorskip("openvino")
    tagger = Tagger.load(copy_with_openvino(folder, tmp_path_factory.mktemp("prepared") / "models"))
    tagger.prepare()
    return tagger


def test_a_prepared_ensemble_tags_the_same_without_keras(prepared, sounds, tags):
    pd.testing.assert_frame_equal(prepared.tag(sounds), tags, rtol=1e-4)
    command = [sys.executable, "-c", TAG_WITHOUT_KERAS, prepared._folder]
    output = subprocess.run(
        [*command, *(sound.content for sound in sounds)], capture_output=True, text=True, check=True
    ).stdout
    found = pd.read_csv(StringIO(output)).drop(columns=["reason", "warning"])
    expected = tags.drop(columns=["reason", "warning"])
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, check_dtype=False)


def test_converted_networks_of_other_weights_are_not_used(prepared, sounds, tmp_path):
    models = Path(shutil.copytree(prepared._folder, tmp_path / "models"))
    assert Tagger.load(models).is_converted()
    first, second = (models / file for file in weight_files(2))
    first.write_bytes(second.read_bytes())
    describe(models, prepared.settings)
    found = Tagger.load(models).predict(sounds[:1]).probabilities
    assert not np.allclose(found, prepared.predict(sounds[:1]).probabilities, rtol=1e-2)
    describe(models, prepared.settings, inference=Inference(runtime="keras"))
    expected = Tagger.load(models).predict(sounds[:1]).probabilities
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_rejected_sounds_need_no_networks(folder, sounds):
    tagger = Tagger.load(folder)
    assert (tagger.tag([sounds[1], sounds[3]])["reason"] != "").all()


def test_a_sound_with_a_reason_is_not_read(tagger):
    (reason,) = tagger.tag([Sound("x.wav", "nowhere/x.wav", "behind a link")])["reason"]
    assert reason == "behind a link"


def test_a_sound_far_beyond_the_training_clips_has_bounded_components_and_a_warning(
    tagger, tags, monkeypatch
):
    seen, predict = [], tagger._predict_clips
    monkeypatch.setattr(
        tagger, "_predict_clips", lambda clips, whole: seen.append(clips) or predict(clips, whole)
    )
    file = BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 22050), 44_100, format="WAV")
    (warning,) = tagger.tag([Sound("noise.wav", file.getvalue())])["warning"]
    assert warning == "unlike every training clip: its tags may be wrong"
    assert (tags["warning"] == "").all()
    (components,), projector = seen[0].components, tagger.projector
    limits = np.float32([projector.minimum, projector.maximum])
    assert (components == limits).any()
    np.testing.assert_array_equal(components, np.clip(components, *limits))


def test_a_tagger_uses_no_more_seconds_than_its_caller_and_its_training_allow(folder, sounds):
    assert Tagger.load(folder, max_seconds=9).settings.decoding.max_seconds == 2
    tags = Tagger.load(folder, max_seconds=0.3).tag(sounds)
    expected = ["", "", "only its first 0.3 s are used", "", "only its first 0.3 s are used"]
    assert tags["warning"].tolist() == expected


def test_only_one_request_at_a_time_is_decoded(tagger, sounds, monkeypatch):
    at_once, most = [], []

    def extract(sound, *, settings):
        at_once.append(sound)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.remove(sound)
        return extract_features(sound, settings=settings)

    monkeypatch.setattr("fsat_kedro.inference.tagger.extract_features", extract)
    rejected = [sounds[1], sounds[3]]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tagger.tag, [rejected] * 8))
    assert max(most) == 1


@pytest.fixture
def copy(folder, tmp_path):
    """Copy the files of the training."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_missing_or_incomplete_ensemble_is_refused_with_what_is_missing(copy, tmp_path):
    with pytest.raises(InputError, match=r"no trained ensemble in .*tagger.json is missing"):
        Tagger.load(tmp_path)
    (copy / weight_files(2)[1]).unlink()
    with pytest.raises(InputError, match=r"incomplete: fold_2/mel_pca.weights.h5 missing"):
        Tagger.load(copy)


@pytest.mark.parametrize("file", parts(2).values())
@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content + b" "])
def test_a_part_that_is_damaged_or_of_another_training_is_refused_by_name(copy, file, damage):
    (copy / file).write_bytes(damage((copy / file).read_bytes()))
    with pytest.raises(InputError, match=rf"not of one training: {file} .* kedro run --only-miss"):
        Tagger.load(copy)


def test_an_ensemble_that_is_described_again_can_be_loaded(copy, sounds, tags, tagger_settings):
    first, second = (copy / file for file in weight_files(2))
    shutil.copy(first, second)
    with pytest.raises(InputError, match=r"kedro run --nodes training.describe_tagger"):
        Tagger.load(copy)
    TaggerDataset(filepath=str(copy / "tagger.json")).save(tagger_settings)
    assert (Tagger.load(copy).tag(sounds)["reason"] == tags["reason"]).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mel_statistics.json", {"minimum": None, "maximum": 40, "shortest": 32, "longest": 64}),
        ("mel_statistics.json", {"minimum": -80, "maximum": 40, "shortest": 0, "longest": 64}),
        ("classes.json", {"labels": []}),
        ("projector.npz", {}),
    ],
)
def test_a_described_part_of_unusable_content_is_refused(copy, file, content, tagger_settings):
    (copy / file).write_text(json.dumps(content))
    TaggerDataset(filepath=str(copy / "tagger.json")).save(tagger_settings)
    with pytest.raises(InputError, match=r"cannot be used: .* Train again: kedro run"):
        Tagger.load(copy)


def test_a_projector_of_other_features_is_refused(copy, tagger_settings):
    projector = fit_projector(np.random.default_rng(0).normal(size=(6, 9)), n_components=5)
    ProjectorDataset(filepath=str(copy / "projector.npz")).save(projector)
    TaggerDataset(filepath=str(copy / "tagger.json")).save(tagger_settings)
    with pytest.raises(InputError, match="the projector is for 9 features"):
        Tagger.load(copy)


def test_weights_of_another_network_are_refused_by_name(copy, sounds, tagger_settings):
    content = (copy / weight_files(2)[0]).read_bytes()
    (copy / weight_files(2)[1]).write_bytes(content[:1000])
    TaggerDataset(filepath=str(copy / "tagger.json")).save(tagger_settings)
    with pytest.raises(InputError, match=r"fold_2/mel_pca.weights.h5 .*--only-missing-outputs"):
        Tagger.load(copy).tag(sounds)


def test_settings_of_another_version_are_refused_with_a_remedy(copy):
    settings = json.loads((copy / "tagger.json").read_text())
    settings["views"] = settings.pop("test_time_crops")
    (copy / "tagger.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"another version .* kedro run --nodes .*describe_tagger"):
        Tagger.load(copy)


def test_damaged_settings_are_refused_with_a_remedy(copy):
    content = (copy / "tagger.json").read_bytes()
    (copy / "tagger.json").write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"tagger.json is damaged: .* --nodes .*describe_tagger"):
        Tagger.load(copy)


def test_an_ensemble_of_an_earlier_version_has_to_be_trained_again(copy, tagger_settings):
    (copy / "projector.npz").rename(copy / "projector.pkl")
    (copy / "tagger.json").write_text(tagger_settings.model_dump_json())
    with pytest.raises(InputError, match=r"earlier version .* Train again: kedro run"):
        Tagger.load(copy)


# Without summary features


@pytest.fixture(scope="module")
def mel_folder(tmp_path_factory, tagger_settings, _with_tiny_backbone):
    """Write the files of a training of stage mel, whose networks predict whole clips."""
    import keras

    from fsat_kedro.modelling.networks import build_network

    changes = {
        "model": {"summary_features": False, "head": "linear"},
        "test_time_crops": {"subset": "whole"},
    }
    groups = {name: {**tagger_settings.model_dump()[name], **x} for name, x in changes.items()}
    settings = TaggerSettings(**{**tagger_settings.model_dump(), **groups})
    folder = tmp_path_factory.mktemp("06_models")
    rng = np.random.default_rng(0)
    statistics = {"minimum": -80.0, "maximum": 40.0, "shortest": 32, "longest": 64}
    (folder / "mel_statistics.json").write_text(json.dumps(statistics))
    (folder / "classes.json").write_text(json.dumps({"labels": ["Bark", "Knock", "Meow", "Purr"]}))
    keras.utils.set_random_seed(0)
    network = build_network(settings.model, weights=None, n_mels=32, n_classes=4)
    for file in weight_files(2, "mel"):
        classes = network.get_layer("classes")
        classes.set_weights([rng.normal(0, 2, weights.shape) for weights in classes.get_weights()])
        (folder / file).parent.mkdir()
        network.save_weights(folder / file)
    TaggerDataset(filepath=str(folder / "tagger.json")).save(settings)
    return folder


MEL_PARTS = {
    "mel_statistics": "mel_statistics.json",
    "classes": "classes.json",
    "mel_weights_1": "fold_1/mel.weights.h5",
    "mel_weights_2": "fold_2/mel.weights.h5",
}


def test_an_ensemble_of_stage_mel_has_neither_projector_nor_weights_of_another_stage(mel_folder):
    assert parts(2, "mel") == MEL_PARTS
    assert TaggerDataset(filepath=str(mel_folder / "tagger.json")).parts() == MEL_PARTS
    digests = json.loads((mel_folder / "tagger.json").read_text())["digests"]
    assert {*digests} == {*MEL_PARTS.values()}
    assert Tagger.load(mel_folder).files() == ["tagger.json", *MEL_PARTS.values()]


def test_its_tags_are_the_mean_over_folds_of_whole_clips(mel_folder, sounds, monkeypatch):
    from fsat_kedro.modelling.networks import load_network

    monkeypatch.setattr("fsat_kedro.inference.tagger.summary_features", None)
    tagger = Tagger.load(mel_folder)
    tags = tagger.tag(sounds)
    assert (tags["reason"] == "").tolist() == [True, False, True, False, True]
    assert (tags["warning"] == "").all()
    networks = [
        load_network(tagger.settings.model, mel_folder / file, n_mels=32, n_classes=4)
        for file in weight_files(2, "mel")
    ]
    probabilities = tagger.predict(sounds).probabilities
    for index in (0, 2, 4):
        mel = extract_features(sounds[index], settings=tagger.settings).mel
        scaled = np.clip((mel.T + 80) / 120, 0, 1)[None, ..., None]
        # The shortest sound has fewer frames than the networks need.
        padded = np.pad(scaled, [(0, 0), (0, 0), (0, max(0, 32 - len(mel))), (0, 0)], "symmetric")
        roots = np.prod([network.predict_on_batch(padded)[0] for network in networks], axis=0)
        expected = np.sqrt(roots) / np.sqrt(roots).sum()
        np.testing.assert_allclose(probabilities[index], expected, rtol=1e-4)
        assert tags["tag_1"][index] == tagger.labels[expected.argmax()]


def test_noise_gets_no_warning_from_a_projector_that_there_is_not(mel_folder):
    file = BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 22050), 44_100, format="WAV")
    (row,) = Tagger.load(mel_folder).tag([Sound("noise.wav", file.getvalue())]).itertuples()
    assert (row.warning, row.reason) == ("", "")


@pytest.mark.parametrize("file", MEL_PARTS.values())
def test_each_of_its_parts_is_checked(mel_folder, tmp_path, file):
    copy = Path(shutil.copytree(mel_folder, tmp_path / "copy"))
    (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    with pytest.raises(InputError, match=f"not of one training: {file} changed"):
        Tagger.load(copy)
    (copy / file).unlink()
    with pytest.raises(InputError, match=f"incomplete: {file} missing"):
        Tagger.load(copy)


def test_its_converted_networks_are_kept_and_tag_the_same(mel_folder, sounds, tmp_path):
    pytest.importorskip("openvino")
    models = copy_with_openvino(mel_folder, tmp_path / "models")
    tagger = Tagger.load(models)
    tagger.prepare()
    converted = [f"fold_{fold}/mel.openvino.zip" for fold in (1, 2)]
    assert tagger.files() == ["tagger.json", *MEL_PARTS.values(), *converted]
    copy = tmp_path / "copy"
    for file in tagger.files():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(models / file, copy / file)
    found = Tagger.load(copy)
    assert found.is_converted()
    expected = Tagger.load(mel_folder).tag(sounds)
    pd.testing.assert_frame_equal(found.tag(sounds), expected, rtol=1e-3)


def test_settings_of_an_ensemble_from_before_pooled_stages_are_those_of_the_last_stage(
    tagger_settings,
):
    settings = tagger_settings.model_dump()
    del settings["model"]["pooled_stages"]
    assert TaggerSettings(**settings) == tagger_settings


def test_samples_are_tagged_as_they_are(mel_folder, monkeypatch):
    """A recording's windows: neither decoded nor trimmed, and each predicted as a whole."""
    tagger = Tagger.load(mel_folder)
    wave = np.concatenate([np.zeros(44_100, np.float32), WAVES["c.flac"].astype(np.float32)])
    file = BytesIO()
    soundfile.write(file, wave, 44_100, format="WAV", subtype="FLOAT")
    seen, predict = [], tagger._predict_clips
    monkeypatch.setattr(
        tagger, "_predict_clips", lambda clips, whole: seen.append(clips) or predict(clips, whole)
    )
    sounds = [Sound("a", wave), Sound("b", wave, "silence"), Sound("c", file.getvalue())]
    found = tagger.predict(sounds, whole=True)
    assert found.remarks["reason"].tolist() == ["", "silence", ""]
    samples, _, trimmed = seen[0].mels.lengths
    assert samples == -(-(len(wave) // 2 + 1) // 220)
    assert trimmed < samples - 44_100 // 2 // 220 + 5
    assert np.isnan(found.probabilities[1]).all()
