"""The encoders: from a log-mel spectrogram to a map of features, for both networks.

Every command checks its parameters here, so that this module imports Keras only to build.

Axes: n clips, m mel bands, t frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fsat_kedro.errors import InputError
from fsat_kedro.parameters import LogMel, Model, Parameters

if TYPE_CHECKING:
    import keras

ENCODER = "encoder"


class Build(Protocol):
    """A function that builds an encoder."""

    def __call__(
        self, settings: Model, *, weights: str | None, n_mels: int, name: str
    ) -> keras.Model:
        """Build it from a file of initial weights, or None for random ones."""


class Fetch(Protocol):
    """A function that downloads initial weights unless they are there, and returns their path."""

    def __call__(self, settings: Model, cache_dir: str) -> str:
        """Return the path of the file."""


@dataclass(frozen=True)
class Encoder:
    """An entry of the table of encoders.

    Attributes:
        build: builds a model from mel (n, m, t, 1), scaled, to a map (n, …, …, features).
        weights: the initial weights that have a name, and what fetches them.
        environment: environment with the settings of this encoder.
        log_mel: the only log-mel that it can use; None for any.
        n_stages: stages that can be frozen or pooled, 0 if none can.
    """

    build: Build
    weights: Mapping[str, Fetch]
    environment: str
    log_mel: LogMel | None = None
    n_stages: int = 0


def build_encoder(settings: Model, *, weights: str | None, n_mels: int) -> keras.Model:
    """Build the encoder that `model.encoder` names.

    Args:
        settings: of the encoder.
        weights: file of initial weights, see `fetch_weights`; None for random ones.
        n_mels: m.

    Returns:
        A model from mel (n, m, t, 1), scaled, to a map (n, m / 32, t / 32, features), or to a list
        of the maps of `model.pooled_stages`.

    Raises:
        InputError: the weights cannot be loaded.
    """
    return _find(settings).build(settings, weights=weights, n_mels=n_mels, name=ENCODER)


def copy_encoder_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy the encoder's weights from one network to another."""
    target.get_layer(ENCODER).set_weights(source.get_layer(ENCODER).get_weights())


def fetch_weights(settings: Model, cache_dir: str) -> str | None:
    """Return the path of the initial weights, or None for random ones.

    Those with a name are downloaded, unless they are there.

    Args:
        settings: encoder and weights.
        cache_dir: folder of downloaded weights. Those of ImageNet are in Keras' own cache.

    Raises:
        InputError: they cannot be downloaded.
    """
    fetch = _find(settings).weights.get(str(settings.weights))
    return settings.weights if fetch is None else fetch(settings, cache_dir)


def require_fitting(parameters: Parameters) -> None:
    """Check that the encoder can use its weights, the log-mel and the stages that are set.

    Raises:
        InputError: it cannot.
    """
    model = parameters.model
    encoder = _find(model)
    remedy = f"--env {encoder.environment} has the settings of {model.encoder}"
    names = {name for each in ENCODERS.values() for name in each.weights}
    if model.weights in names - set(encoder.weights):
        raise InputError(
            f"model.weights is {model.weights}, but {model.encoder} has "
            f"{' and '.join(encoder.weights)}, or a file, or null for random weights. {remedy}"
        )
    if encoder.log_mel is not None and parameters.log_mel != encoder.log_mel:
        needed, given = encoder.log_mel.model_dump(), parameters.log_mel.model_dump()
        different = [name for name in needed if needed[name] != given[name]]
        raise InputError(
            f"model.encoder is {model.encoder}, which needs "
            + ", ".join(f"log_mel.{name}={needed[name]} (not {given[name]})" for name in different)
            + f". {remedy}"
        )
    if model.frozen_stages > encoder.n_stages:
        raise InputError(
            f"model.frozen_stages is {model.frozen_stages}, but {model.encoder} has "
            f"{encoder.n_stages} stages that can be frozen"
        )
    if model.pooled_stages and max(model.pooled_stages) >= encoder.n_stages:
        stages = f"stages 0 to {encoder.n_stages - 1}" if encoder.n_stages else "no such stages"
        raise InputError(
            f"model.pooled_stages is {[*model.pooled_stages]}, but {model.encoder} has {stages}"
        )
    if parameters.training.probe and (model.weights is None or model.head != "linear"):
        raise InputError(
            "training.probe is true, which needs the weights of a pretrained encoder and a linear "
            f"head: set model.weights and model.head=linear, or training.probe to false. {remedy}"
        )
    if parameters.training.label_noise.rounds and not (
        parameters.training.probe or model.summary_features
    ):
        raise InputError(
            "training.label_noise.rounds needs features that no label had a part in: set "
            "training.probe or model.summary_features to true, or the rounds to 0"
        )
    if model.summary_features and not parameters.training.planned_phases():
        raise InputError(
            "training has a probe and no phase, but stage mel_pca has no probe: set "
            "model.summary_features to false, or training.probe_only to false and the epochs of a "
            "phase"
        )
    if model.freeze_normalisation and not encoder.n_stages:
        raise InputError(
            f"model.freeze_normalisation is true, but {model.encoder} has to learn its "
            "normalisation: set it to false"
        )


def _find(settings: Model) -> Encoder:
    if settings.encoder not in ENCODERS:
        raise InputError(
            f"model.encoder is {settings.encoder}, which is none of {', '.join(ENCODERS)}"
        )
    return ENCODERS[settings.encoder]


def _build_mobilenet_v2(
    settings: Model, *, weights: str | None, n_mels: int, name: str
) -> keras.Model:
    from fsat_kedro.modelling.mobilenet_v2 import build_mobilenet_v2

    return build_mobilenet_v2(settings, weights=weights, n_mels=n_mels, name=name)


def _fetch_imagenet(settings: Model, cache_dir: str) -> str:
    from fsat_kedro.modelling.mobilenet_v2 import fetch_imagenet_weights

    return fetch_imagenet_weights(settings.width)


def _build_mobilenet_v3(
    width: float, settings: Model, *, weights: str | None, n_mels: int, name: str
) -> keras.Model:
    from fsat_kedro.modelling import mobilenet_v3

    encoder = mobilenet_v3.build_mobilenet_v3(width, n_mels=n_mels, name=name)
    if weights is not None:
        mobilenet_v3.load_published_weights(encoder, weights, encoder=settings.encoder)
    mobilenet_v3.freeze(
        encoder, n_stages=settings.frozen_stages, normalisation=settings.freeze_normalisation
    )
    if settings.pooled_stages:
        encoder = mobilenet_v3.select_stages(encoder, settings.pooled_stages)
    return encoder


def _published(url: str, *, size: int | None, sha256: str | None) -> Fetch:
    """Return a function that downloads a file.

    Args:
        url: of the file.
        size: bytes, or None if they are not known: then the server's word counts.
        sha256: 64 hex digits, or None if they are not known: then the file has to have the
            encoder's structure.
    """

    def fetch(settings: Model, cache_dir: str) -> str:
        from fsat_kedro.data.download import fetch_file

        remedy = (
            "Or download it with another machine, and set model.weights to its path. To train from "
            "random weights, set model.weights to null"
        )
        folder = Path(cache_dir) / "weights"
        return str(fetch_file(url, folder, size=size, sha256=sha256, remedy=remedy))

    return fetch


_EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
_EFFICIENTAT_LOG_MEL = LogMel(
    kind="kaldi", sample_rate=32_000, n_fft=1024, hop_length=320, n_mels=128
)


def _mobilenet_v3(width: float, file: str) -> Encoder:
    # EfficientAT publishes neither sizes nor checksums of its files.
    return Encoder(
        build=partial(_build_mobilenet_v3, width),
        weights={"audioset": _published(_EFFICIENTAT + file, size=None, sha256=None)},
        environment="audioset",
        log_mel=_EFFICIENTAT_LOG_MEL,
        n_stages=17,
    )


ENCODERS = {
    "mobilenet_v2": Encoder(
        build=_build_mobilenet_v2, weights={"imagenet": _fetch_imagenet}, environment="base"
    ),
    "mn04": _mobilenet_v3(0.4, "mn04_as_mAP_432.pt"),
    "mn10": _mobilenet_v3(1.0, "mn10_as_mAP_471.pt"),
    "mn20": _mobilenet_v3(2.0, "mn20_as_mAP_478.pt"),
}
