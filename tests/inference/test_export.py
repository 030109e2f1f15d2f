"""Exported ensembles of untrained tiny networks, beside the taggers that they come from."""

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fsat_kedro.audio.log_mel import log_mel
from fsat_kedro.audio.projection import fit_projector
from fsat_kedro.audio.summary_features import summary_features
from fsat_kedro.data.synthetic import LABELS, synthesize
from fsat_kedro.datasets import ProjectorDataset, TaggerDataset
from fsat_kedro.errors import InputError
from fsat_kedro.inference import export as module
from fsat_kedro.inference.export import FILES, Export, export
from fsat_kedro.inference.tagger import Sound, extract_features, weight_files
from fsat_kedro.parameters import Decoding, LogMel

EXAMPLE = Path(__file__).parents[2] / "docs/tag_with_onnx.py"

KALDI = LogMel(kind="kaldi", sample_rate=32_000, n_fft=1024, hop_length=320, n_mels=32)
SETTINGS = {"summary": {}, "librosa": {}, "kaldi": {"log_mel": KALDI}}
STATISTICS = {
    # Some of the sounds lie beyond these, and the first is shorter than 32 frames.
    "librosa": {"minimum": -60.0, "maximum": 20.0, "bounded": True},
    "kaldi": {"minimum": -4.5, "maximum": 0.5, "bounded": False},
}
SECONDS = (0.1, 0.5, 0.9)

FORMATS = [
    pytest.param(each, marks=pytest.mark.skipif(find_spec(package) is None, reason="not installed"))
    for each, package in (("onnx", "tf2onnx"), ("openvino", "openvino"))
]


@pytest.fixture(scope="module", autouse=True)
def _with_tiny_backbone(tiny_backbone):
    with tiny_backbone():
        yield


@pytest.fixture(scope="module")
def taggers(tmp_path_factory, tagger_settings, _with_tiny_backbone):
    """Write three ensembles of two folds that predict whole clips, and load them."""
    return {
        name: write_ensemble(tmp_path_factory.mktemp(name), tagger_settings, name)
        for name in SETTINGS
    }


def write_ensemble(folder, settings, name, **model):
    """Write the files of a training, and load them as a tagger."""
    import keras

    from fsat_kedro.modelling.networks import build_network

    rng, has_summary = np.random.default_rng(0), name == "summary"
    settings = settings.model_copy(
        update={
            "decoding": Decoding(max_seconds=40),
            "model": settings.model.model_copy(update={"summary_features": has_summary, **model}),
            "test_time_crops": settings.test_time_crops.model_copy(update={"subset": "whole"}),
            **SETTINGS[name],
        }
    )
    waves = [synthesize(label, 0.5, rng) for label in LABELS[:7]]
    statistics = {**STATISTICS[settings.log_mel.kind], "shortest": 32, "longest": 64}
    low, high = statistics["minimum"], statistics["maximum"]
    mels = np.stack([log_mel(each, **settings.log_mel.model_dump()) for each in waves])
    inputs = [((mels - low) / (high - low))[..., None]]
    if has_summary:
        summaries = np.float64([*map(summary_features, waves)])
        projector = fit_projector(summaries, n_components=5)
        ProjectorDataset(filepath=str(folder / "projector.npz")).save(projector)
        inputs.append(projector.transform(summaries).astype(np.float32))
    (folder / "mel_statistics.json").write_text(json.dumps(statistics))
    (folder / "classes.json").write_text(json.dumps({"labels": ["Bark", "Knöck", "Meow", "Purr"]}))
    keras.utils.set_random_seed(0)
    n_components = 5 if has_summary else None
    network = build_network(
        settings.model, weights=None, n_mels=32, n_classes=4, n_components=n_components
    )
    for file in weight_files(2, settings.model.stages[-1]):
        make_sensitive(network, inputs, rng)
        (folder / file).parent.mkdir()
        network.save_weights(folder / file)
    dataset = TaggerDataset(filepath=str(folder / "tagger.json"))
    dataset.save(settings)
    return dataset.load()


def make_sensitive(network, inputs, rng):
    """Give the last layer random weights with which the probabilities differ from sound to sound.

    Those of an untrained network are nearly the same for every input, right or wrong.
    """
    import keras

    classes = network.get_layer("classes")
    features = keras.Model(network.inputs, classes.input).predict_on_batch(inputs)
    kernel = rng.normal(size=(features.shape[1], 4))
    logits = features.astype(np.float64) @ kernel
    kernel /= logits.std(axis=0)
    classes.set_weights([kernel, -(features @ kernel).mean(axis=0)])


@pytest.fixture(scope="module")
def exports(taggers, tmp_path_factory):
    """Return a function that exports an ensemble once."""
    done: dict[tuple, Export] = {}

    def get(name, format_):
        if (name, format_) not in done:
            folder = tmp_path_factory.mktemp("exports")
            done[name, format_] = export(taggers[name], folder, format_=format_)
        return done[name, format_]

    return get


def runner(exported):
    """Return a function from inputs to probabilities, that opens the file as a stranger would."""
    path = next(each for each in exported.folder.iterdir() if each.suffix in (".onnx", ".xml"))
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda inputs: session.run(None, inputs)[0]
    import openvino

    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: model(inputs)[0]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Write sounds of different lengths, rates and channels as WAV files of 16 bits."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(1)
    for index, seconds in enumerate(SECONDS):
        # With silence at both ends.
        wave = np.pad(0.5 * synthesize(LABELS[2 * index], seconds, rng), 4000)
        soundfile.write(folder / f"{index}.wav", wave, 44_100, subtype="PCM_16")
    stereo = np.stack([wave, wave[::-1]], axis=1)
    soundfile.write(folder / "stereo.wav", stereo, 16_000, subtype="PCM_16")
    noise = 0.1 * rng.standard_normal(48_000) * np.linspace(0, 1, 48_000)
    soundfile.write(folder / "noise.wav", noise, 48_000, subtype="PCM_16")
    # More than 3,000 frames.
    long = np.concatenate([np.tile(synthesize(LABELS[3], 2, rng), 8), np.tile(wave, 25)])[
        : 44_100 * 33
    ]
    soundfile.write(folder / "long.wav", long, 44_100, subtype="PCM_16")
    return [Sound(file.name, str(file)) for file in sorted(folder.iterdir())]


def inputs_of(tagger, sound):
    features = extract_features(sound, settings=tagger.settings)
    inputs = {"log_mel": features.mel.T[None]}
    return inputs | ({"summary": features.summary[None]} if tagger.projector else {})


# The graph


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_file_gives_what_the_tagger_gives(taggers, exports, sounds, name, format_):
    tagger, exported = taggers[name], exports(name, format_)
    short = sounds[:3]
    inputs = [inputs_of(tagger, sound) for sound in short]
    assert {each["log_mel"].shape[2] < 32 for each in inputs} == {True, False}
    found = np.concatenate([*map(runner(exported), inputs)])
    expected = tagger.predict(short).probabilities
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert exported.difference < 1e-5
    assert {each.name for each in exported.folder.iterdir()} == {*FILES[format_]}
    assert exported.n_bytes == sum(each.stat().st_size for each in exported.folder.iterdir())


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", ["summary", "kaldi"])
def test_a_batch_gives_what_its_sounds_give_alone(taggers, exports, sounds, name, format_):
    alone = [inputs_of(taggers[name], sound) for sound in sounds[1:4]]
    for inputs in alone:
        inputs["log_mel"] = inputs["log_mel"][:, :, :40]
    run = runner(exports(name, format_))
    found = run({key: np.concatenate([each[key] for each in alone]) for key in alone[0]})
    np.testing.assert_allclose(found, np.concatenate([*map(run, alone)]), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.1


@pytest.mark.parametrize("format_", FORMATS)
def test_one_of_the_networks_can_be_exported_alone(taggers, sounds, tmp_path, format_):
    tagger = taggers["librosa"]
    exported = export(tagger, tmp_path, format_=format_, folds=[2])
    mel = inputs_of(tagger, sounds[1])["log_mel"]
    scaled = np.clip((mel + 60) / 80, 0, 1)[..., None]
    expected = tagger.load_network(2).predict_on_batch([scaled])
    np.testing.assert_allclose(runner(exported)({"log_mel": mel}), expected, atol=1e-5)
    assert np.abs(expected - tagger.predict([sounds[1]]).probabilities).max() > 0.01
    with np.load(exported.folder / "preprocessing.npz") as constants:
        assert constants["folds"].tolist() == [2]


@pytest.mark.parametrize("format_", FORMATS)
def test_an_ensemble_of_half_precision_is_exported_in_single_precision(
    tagger_settings, sounds, tmp_path, format_
):
    (tmp_path / "models").mkdir()
    tagger = write_ensemble(
        tmp_path / "models", tagger_settings, "librosa", precision="mixed_bfloat16"
    )
    exported = export(tagger, tmp_path, format_=format_)
    assert exported.difference < 1e-5
    difference = (
        runner(exported)(inputs_of(tagger, sounds[1])) - tagger.predict([sounds[1]]).probabilities
    )
    assert 1e-5 < np.abs(difference).max() < 0.05


def test_a_conversion_for_openvino_sends_no_telemetry(taggers, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    export(taggers["librosa"], tmp_path, format_="openvino", folds=[1])
    assert sys.modules["openvino_telemetry"] is None


# The constants and the example


def test_the_constants_need_no_pickle(taggers, exports):
    with np.load(exports("kaldi", "openvino").folder / "preprocessing.npz") as constants:
        arrays = {key: constants[key] for key in constants.files}  # Objects would be refused.
    assert arrays["labels"].tolist() == ["Bark", "Knöck", "Meow", "Purr"]
    assert arrays["folds"].tolist() == [1, 2]
    assert arrays["mel_filters"].shape == (32, 513)


def test_the_example_needs_numpy_and_onnx_runtime_alone():
    nodes = [*ast.walk(ast.parse(EXAMPLE.read_text()))]
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
    imports = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    assert imports == {"numpy", "onnxruntime", "sys", "wave"}


def run_example(exported, file, **options):
    command = [sys.executable, "-I", str(EXAMPLE), str(exported.folder), str(file)]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.parametrize("name", ["librosa", "kaldi"])
def test_the_example_gives_the_tags_of_the_tagger(taggers, exports, sounds, name):
    pytest.importorskip("tf2onnx")
    tagger = taggers[name]
    for sound, row in zip(sounds, tagger.tag(sounds).itertuples(), strict=True):
        output = run_example(exports(name, "onnx"), sound.content, check=True).stdout
        printed = [line.split() for line in output.splitlines()]
        assert [label for _, label in printed] == [row.tag_1, row.tag_2, row.tag_3]
        found = [float(percent.rstrip("%")) / 100 for percent, _ in printed]
        expected = [row.probability_1, row.probability_2, row.probability_3]
        np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_example_says_what_it_cannot_tag(exports, sounds, tmp_path):
    pytest.importorskip("tf2onnx")
    found = run_example(exports("summary", "onnx"), sounds[0].content)
    assert found.returncode == 1
    assert found.stderr.splitlines() == [
        "this ensemble needs summary features, which this example does not compute"
    ]
    soundfile.write(tmp_path / "a.wav", np.ones(9), 44_100, subtype="PCM_24")
    found = run_example(exports("kaldi", "onnx"), tmp_path / "a.wav")
    assert found.stderr.splitlines() == ["only WAV files of 16 bits can be read"]


# What is refused


def test_a_file_that_gives_other_probabilities_is_not_left_behind(taggers, tmp_path, monkeypatch):
    import tensorflow as tf

    export(taggers["kaldi"], tmp_path, format_="openvino")
    before = {each: each.read_bytes() for each in tmp_path.rglob("*.*")}

    def combine(*logs):
        return {"probabilities": tf.nn.softmax(1.1 * tf.add_n(logs) / len(logs))}

    monkeypatch.setattr(module._Graph, "combine", staticmethod(combine))
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(InputError, match=r"differ by 0\.\d+ from those of Keras"):
            export(taggers["kaldi"], folder, format_="openvino")
    assert {each: each.read_bytes() for each in tmp_path.rglob("*.*")} == before
    assert [each.name for each in tmp_path.iterdir()] == ["tagger_openvino", "new"]
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_with_other_files_stays_as_it_is(taggers, tmp_path):
    folder = tmp_path / "tagger_openvino"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    with pytest.raises(InputError, match="is no earlier export"):
        export(taggers["kaldi"], tmp_path, format_="openvino")
    assert [each.name for each in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("folds", [[0], [1, 3]])
def test_a_fold_that_does_not_exist_is_refused(taggers, tmp_path, folds):
    with pytest.raises(InputError, match=f"no fold {folds[-1]}: the ensemble has folds 1 to 2"):
        export(taggers["kaldi"], tmp_path, format_="openvino", folds=folds)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format_", "missing"), [("onnx", "tf2onnx"), ("openvino", "openvino")])
def test_a_missing_package_is_an_error_with_its_remedy(
    taggers, tmp_path, monkeypatch, format_, missing
):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(InputError, match=rf'needs {missing}: uv pip .* "\.\[{format_}\]"'):
        export(taggers["kaldi"], tmp_path, format_=format_)
    assert not list(tmp_path.iterdir())


def test_another_backend_is_an_error_with_its_remedy(taggers, tmp_path, monkeypatch):
    import keras

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match="runs on jax: set KERAS_BACKEND to tensorflow"):
        export(taggers["kaldi"], tmp_path, format_="onnx")
    assert not list(tmp_path.iterdir())
