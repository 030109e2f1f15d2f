import subprocess
import sys
from zipfile import ZipFile

import keras
import numpy as np
import pytest
from narrow_model import NARROW

from fsat_kedro.errors import InputError
from fsat_kedro.inference import runtimes
from fsat_kedro.inference.runtimes import (
    OpenVINONetwork,
    convert,
    load_converted,
    save_converted,
    uses_openvino,
)
from fsat_kedro.modelling.networks import build_network
from fsat_kedro.parameters import Inference


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    return build_network(NARROW, weights=None, n_mels=32, n_classes=4, n_components=6)


@pytest.fixture(scope="module")
def model(network):
    pytest.importorskip("openvino")
    return convert(network)


def inputs_of(rng, n, n_frames):
    mel = rng.random((n, 32, n_frames, 1), np.float32)
    return [mel, rng.standard_normal((n, 6)).astype(np.float32)]


@pytest.mark.parametrize(("n", "n_frames"), [(1, 40), (7, 90), (20, 64)])
def test_openvino_gives_what_keras_gives_for_any_batch_and_length(network, model, rng, n, n_frames):
    inputs = inputs_of(rng, n, n_frames)
    converted = OpenVINONetwork(model)
    assert converted.output_shape == (None, 4)
    found = converted.predict_on_batch(inputs)
    np.testing.assert_allclose(found, network.predict_on_batch(inputs), atol=1e-5)


def test_a_conversion_keeps_the_weights_of_its_time(network, model, rng):
    inputs = inputs_of(rng, 7, 90)
    converted = OpenVINONetwork(model)
    before = converted.predict_on_batch(inputs)
    classes = network.get_layer("classes")
    kernel, bias = classes.get_weights()
    classes.set_weights([kernel, rng.standard_normal(4)])
    try:
        assert np.abs(network.predict_on_batch(inputs) - before).max() > 0.01
        np.testing.assert_allclose(converted.predict_on_batch(inputs), before, atol=1e-6)
        np.testing.assert_allclose(OpenVINONetwork(model).predict_on_batch(inputs), before)
    finally:
        classes.set_weights([kernel, bias])


def test_a_saved_conversion_gives_the_same_to_the_last_bit(model, rng, tmp_path):
    save_converted(model, tmp_path / "network.zip", origin="these weights")
    loaded = load_converted(tmp_path / "network.zip", origin="these weights")
    inputs = [rng.random((3, 32, 50, 1), np.float32), rng.random((3, 6), np.float32)]
    first, second = (OpenVINONetwork(each).predict_on_batch(inputs) for each in (model, loaded))
    np.testing.assert_array_equal(first, second)


def test_a_conversion_of_other_weights_a_damaged_one_and_none_are_not_loaded(model, tmp_path):
    path = tmp_path / "network.zip"
    assert load_converted(path, origin="these weights") is None
    save_converted(model, path, origin="these weights")
    assert load_converted(path, origin="other weights") is None
    with ZipFile(path) as archive:
        weights = archive.read("model.bin")
    with ZipFile(tmp_path / "later.zip", "w") as archive:
        archive.writestr("model.xml", '<net name="x" version="99"></net>')
        archive.writestr("model.bin", weights)
        archive.comment = b"these weights"
    assert load_converted(tmp_path / "later.zip", origin="these weights") is None
    content = bytearray(path.read_bytes())
    for damaged in (content[:-100], content[: len(content) // 2] + b"x" * 99, b""):
        path.write_bytes(damaged)
        assert load_converted(path, origin="these weights") is None
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load_converted(path, origin="these weights") is None


def test_a_conversion_sends_no_telemetry():
    pytest.importorskip("openvino")
    code = """
import keras
from fsat_kedro.inference.runtimes import convert
convert(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
import openvino.tools.ovc.telemetry_utils as utils
print(utils.tm.__name__)
"""
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines()[-1] == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize(
    ("runtime", "n_crops", "installed", "backend", "uses"),
    [
        ("auto", 100_000, True, "tensorflow", True),
        ("auto", 30, True, "tensorflow", False),
        ("auto", 100_000, False, "tensorflow", False),
        ("auto", 100_000, True, "torch", False),
        ("keras", 100_000, True, "tensorflow", False),
        ("openvino", 30, True, "tensorflow", True),
    ],
)
def test_openvino_is_used_where_it_works_and_saves_time(
    monkeypatch, runtime, n_crops, installed, backend, uses
):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert uses_openvino(Inference(runtime=runtime), n_crops) == uses


def test_a_gpu_is_for_keras(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object())
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: True)
    assert not uses_openvino(Inference(runtime="auto"), 100_000)


def test_what_openvino_lacks_is_an_error_with_a_remedy(monkeypatch):
    settings = Inference(runtime="openvino")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install openvino"):
        uses_openvino(settings, 1)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object())
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match="KERAS_BACKEND to tensorflow"):
        uses_openvino(settings, 1)
