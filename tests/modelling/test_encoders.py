"""The table of encoders: what fits together, and where the weights come from."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from kedro.config import OmegaConfigLoader
from narrow_model import NARROW
from torch_files import tensors_of, write_tensors

from fsat_kedro.errors import InputError
from fsat_kedro.modelling import encoders
from fsat_kedro.modelling.encoders import (
    ENCODERS,
    build_encoder,
    copy_encoder_weights,
    fetch_weights,
    require_fitting,
)
from fsat_kedro.modelling.networks import build_network
from fsat_kedro.parameters import Parameters
from fsat_kedro.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
MN04 = NARROW.model_copy(update={"encoder": "mn04", "frozen_stages": 2})


def configured(env, **changes):
    """Return the parameters of an environment, changed as those of a command are."""
    loader = OmegaConfigLoader(
        conf_source=str(CONF), env=env, runtime_params=changes, **CONFIG_LOADER_ARGS
    )
    return Parameters.model_validate(loader["parameters"])


@pytest.mark.parametrize("env", ["base", "demo", "esc50", "audioset"])
def test_the_parameters_of_an_environment_fit_together(env):
    require_fitting(configured(env))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_environment_of_an_encoder_has_settings_that_fit(encoder):
    require_fitting(configured(ENCODERS[encoder].environment, model={"encoder": encoder}))


@pytest.mark.parametrize(
    ("env", "model", "message"),
    [
        ("base", {"encoder": "mn40"}, "mn40, which is none of mobilenet_v2, mn04"),
        (
            "base",
            {"encoder": "mn04"},
            "weights is imagenet, but mn04 has audioset, .* --env audioset",
        ),
        (
            "audioset",
            {"encoder": "mobilenet_v2"},
            "audioset, but mobilenet_v2 has imagenet.* --env b",
        ),
        (
            "esc50",
            {"encoder": "mn10", "weights": None},
            r"mn10, which needs log_mel.kind=kaldi \(not librosa\), log_mel.sample_rate=32000 "
            r"\(not 22050\), log_mel.n_fft=1024 \(not 1764\), log_mel.hop_length=320 \(not 440\). "
            "--env audioset has the settings of mn10",
        ),
        ("audioset", {"frozen_stages": 18}, "18, but mn04 has 17 stages"),
        ("base", {"frozen_stages": 1}, "1, but mobilenet_v2 has 0 stages"),
        ("audioset", {"pooled_stages": [17, 3]}, r"\[17, 3\], but mn04 has stages 0 to 16"),
        ("base", {"pooled_stages": [0]}, r"\[0\], but mobilenet_v2 has no such stages"),
        ("base", {"freeze_normalisation": True}, "mobilenet_v2 has to learn its normalisation"),
    ],
)
def test_settings_that_do_not_fit_are_refused(env, model, message):
    with pytest.raises(InputError, match=message):
        require_fitting(configured(env, model=model))


PROBE = {"probe": True}
NO_EPOCHS = {"phases": {name: {"epochs": 0} for name in ("cyclic", "low", "high", "cosine")}}


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        (
            "audioset",
            {"model": {"weights": None}},
            "probe is true, which needs the weights of a pretrained encoder and a linear head: "
            "set model.weights .*, or training.probe to false",
        ),
        ("audioset", {"model": {"head": "mlp"}}, "needs .* a linear head: .*model.head=linear"),
        ("base", {"training": PROBE}, "needs .* a linear head: .* --env base has the settings of"),
        (
            "audioset",
            {"model": {"summary_features": True}, "training": {"probe_only": True}},
            "stage mel_pca has no probe: set model.summary_features to false, or training.probe_o",
        ),
        (
            "audioset",
            {"model": {"summary_features": True}, "training": NO_EPOCHS},
            "a probe and no phase, but stage mel_pca has no probe",
        ),
    ],
)
def test_a_probe_that_cannot_be_is_refused(env, changes, message):
    with pytest.raises(InputError, match=message):
        require_fitting(configured(env, **changes))


@pytest.mark.parametrize(
    ("env", "changes"),
    [
        ("audioset", {"training": {"probe_only": True}}),
        ("audioset", {"training": NO_EPOCHS}),
        (
            "audioset",
            {
                "training": {"probe": False, "label_noise": {"rounds": 0}},
                "model": {"weights": None, "head": "mlp"},
            },
        ),
        ("audioset", {"model": {"summary_features": True}}),
        ("base", {"training": PROBE, "model": {"head": "linear"}}),
    ],
)
def test_a_probe_that_can_be_is_not_refused(env, changes):
    require_fitting(configured(env, **changes))


def test_trust_in_labels_needs_features_that_no_label_had_a_part_in():
    changes = {"training": {"probe": False}}
    with pytest.raises(InputError, match=r"label_noise\.rounds needs features .*training\.probe"):
        require_fitting(configured("audioset", **changes))
    require_fitting(configured("audioset", **changes, model={"summary_features": True}))
    require_fitting(configured("base", training={"label_noise": {"rounds": 2}}))


def test_other_weights_need_no_download(tmp_path):
    assert fetch_weights(NARROW, str(tmp_path)) is None
    (tmp_path / "mine.h5").touch()
    mine = NARROW.model_copy(update={"weights": "mine.h5"})
    assert fetch_weights(mine, str(tmp_path)) == "mine.h5"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.h5"]


def test_weights_of_audioset_are_downloaded_once(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "published")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/mn04.pt"
        fetch = encoders._published(url, size=None, sha256=None)
        entry = encoders.Encoder(ENCODERS["mn04"].build, {"audioset": fetch}, "audioset")
        monkeypatch.setitem(ENCODERS, "mn04", entry)
        settings = MN04.model_copy(update={"weights": "audioset"})
        with pytest.raises(InputError, match=r"404.*and set model\.weights to its path"):
            fetch_weights(settings, str(tmp_path / "cache"))
        (tmp_path / "published" / "mn04.pt").write_bytes(b"weights")
        path = fetch_weights(settings, str(tmp_path / "cache"))
        server.shutdown()
    assert Path(path).read_bytes() == b"weights"
    assert fetch_weights(settings, str(tmp_path / "cache")) == path


def test_an_encoder_is_built_with_weights_of_a_file_and_frozen_stages(tmp_path, rng):
    network = build_encoder(MN04, weights=None, n_mels=128)
    tensors = tensors_of(network, lambda variable: np.full(variable.shape, 0.25))
    path = str(write_tensors(tmp_path / "mn04.pt", tensors))
    encoder = build_encoder(MN04, weights=path, n_mels=128)
    assert all((weights == 0.25).all() for weights in encoder.get_weights())
    frozen = [layer for layer in encoder.layers if layer.weights and not layer.trainable]
    assert {layer.name.split(".")[1] for layer in frozen} == {"0", "1"}


def test_an_encoder_gives_the_maps_of_the_stages_that_are_pooled(tmp_path, rng):
    random = build_encoder(MN04, weights=None, n_mels=128)
    path = str(write_tensors(tmp_path / "mn04.pt", tensors_of(random, np.asarray)))
    whole = build_encoder(MN04, weights=path, n_mels=128)
    pooled = MN04.model_copy(update={"pooled_stages": (16, 4)})
    encoder = build_encoder(pooled, weights=path, n_mels=128)
    mel = rng.random((2, 128, 64, 1), np.float32)
    last, fourth = encoder(mel)
    np.testing.assert_array_equal(last, whole(mel))
    # Stage 5 is a block that begins with what stage 4 makes of it.
    assert fourth.shape == (2, 16, 8, 16)
    expanded = encoder.get_layer("features.5.block.0.0")(fourth)
    assert expanded.shape[-1] == 48
    frozen = [layer for layer in encoder.layers if layer.weights and not layer.trainable]
    assert {layer.name.split(".")[1] for layer in frozen} == {"0", "1"}


def test_the_encoder_weights_are_copied_and_no_others():
    import keras

    sizes = {"n_mels": 32, "n_classes": 3}
    mel_network = build_network(NARROW, weights=None, **sizes)
    keras.utils.set_random_seed(1)
    mel_pca_network = build_network(NARROW, weights=None, **sizes, n_components=5)
    source, target = (network.get_layer("encoder") for network in (mel_network, mel_pca_network))
    head = {
        layer.name: layer.get_weights() for layer in mel_pca_network.layers if layer is not target
    }
    before = source.get_weights()
    assert any((a != b).any() for a, b in zip(before, target.get_weights(), strict=True))
    copy_encoder_weights(mel_network, mel_pca_network)
    for ours, theirs, old in zip(target.get_weights(), source.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(theirs, old)
    for name, weights in head.items():
        for ours, old in zip(mel_pca_network.get_layer(name).get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, old)
