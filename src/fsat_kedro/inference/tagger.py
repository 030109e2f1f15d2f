"""A trained ensemble for anybody's sounds: from sound files to ranked tags.

It needs nothing but what training leaves in `06_models`. Axes: n sounds, p components, c classes.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePath
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError
from sklearn.pipeline import Pipeline as Projector

from fsat_kedro.audio.decoding import read_clip
from fsat_kedro.audio.log_mel import log_mel
from fsat_kedro.audio.summary_features import compile_librosa, feature_names, summary_features
from fsat_kedro.data.ragged import gather
from fsat_kedro.data.raw_files import open_raw_file
from fsat_kedro.errors import InputError
from fsat_kedro.evaluation.metrics import N_TAGS, top_k
from fsat_kedro.inference.ensemble import geometric_mean, predict, view_batches
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import Decoding, Inference, LogMel, Model, Trim, Views

# Keras takes seconds to import, and the catalog is read by every command.
if TYPE_CHECKING:
    import keras

    from fsat_kedro.inference.runtimes import Network, OpenVINONetwork

SETTINGS_FILE = "tagger.json"


class TaggerSettings(BaseModel):
    """With which settings an ensemble was trained, and how it looks at sounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoding: Decoding
    trim: Trim
    log_mel: LogMel
    model: Model
    views: Views
    inference: Inference
    seed: int
    n_folds: int


@dataclass(frozen=True)
class Sound:
    """What is to be tagged.

    Attributes:
        name: of the file. What is drawn for a sound depends on it, here as in the pipelines.
        content: where the file is (see `rawfolder`), or its bytes.
        reason: why it is not to be read, "" where it is.
    """

    name: str
    content: str | bytes
    reason: str = ""


class _Heard(NamedTuple):
    """What the networks need to know of a sound: of a rejected one, nothing but the reason."""

    mel: np.ndarray
    summary: np.ndarray
    reason: str
    warning: str


class Tagger:
    """All that becomes of a training: features, projection, and the networks of all folds.

    Attributes:
        labels: c names of classes.
        settings: those of the training.
    """

    def __init__(
        self,
        settings: TaggerSettings,
        labels: list[str],
        mel_statistics: dict[str, float],
        projector: Projector,
        weights: list[Path],
    ) -> None:
        self.settings = settings
        self.labels = labels
        self._mel_statistics = mel_statistics
        self._projector = projector
        self._weight_files = weights
        self._network: keras.Model | None = None
        self._weights: list[list[np.ndarray]] = []
        self._converted: list[OpenVINONetwork] = []
        # Of Keras there is one network, whose weights are changed from fold to fold.
        self._predicting = Lock()

    @classmethod
    def load(cls, folder: Path) -> "Tagger":
        """The ensemble that a finished training left in `06_models`.

        Raises:
            InputError: there is none, or it is not whole.
        """
        try:
            settings = TaggerSettings.model_validate_json((folder / SETTINGS_FILE).read_text())
            statistics = json.loads((folder / "mel_statistics.json").read_text())
            labels = json.loads((folder / "classes.json").read_text())["labels"]
            with (folder / "projector.pkl").open("rb") as file:
                projector = pickle.load(file)
        except FileNotFoundError as error:
            raise InputError(
                f"no trained ensemble in {folder}: {Path(error.filename).name} is missing. Train "
                "first (kedro run), or set data_dir to where the results of a training are"
            ) from error
        except ValidationError as error:
            raise InputError(
                f"{folder / SETTINGS_FILE} is not of this version of the project: run "
                "kedro run --nodes training.describe_tagger with the settings of the training"
            ) from error
        weights = [folder / file for file in weight_files(settings.n_folds)]
        missing = [str(file.relative_to(folder)) for file in weights if not file.is_file()]
        if missing:
            raise InputError(f"the ensemble in {folder} is not whole: {', '.join(missing)} missing")
        return cls(settings, labels, statistics, projector, weights)

    def tag(
        self, sounds: Sequence[Sound], *, n_jobs: int = 1, spool_dir: Path | str | None = None
    ) -> pd.DataFrame:
        """Tag sounds; what cannot be used of them stops nothing.

        Args:
            sounds: at least one.
            n_jobs: processes for their features; −1 for one per core.
            spool_dir: a folder with room for all their spectrograms; None for the system's.

        Returns:
            A row a sound: fname; tag_1, probability_1 and so on to the third, missing where there
            are fewer classes or the sound was rejected; reason (why, "" if it was not); note
            (what is odd about it).
        """
        probabilities, heard = self._probabilities(sounds, n_jobs, spool_dir)
        names = pd.DataFrame({"fname": [sound.name for sound in sounds]})
        remarks = pd.DataFrame(heard)[["reason", "warning"]]
        return pd.concat([names, best_tags(probabilities, self.labels), remarks], axis=1)

    def probabilities(self, sounds: Sequence[Sound], *, n_jobs: int = 1) -> np.ndarray:
        """What `tag` ranks: probabilities of every class, (n, c); NaN for a rejected sound."""
        return self._probabilities(sounds, n_jobs, None)[0]

    def _probabilities(
        self, sounds: Sequence[Sound], n_jobs: int, spool_dir: Path | str | None
    ) -> tuple[np.ndarray, list[_Heard]]:
        from fsat_kedro.modelling.batches import Clips

        heard: list[_Heard] = []

        def mels() -> Iterator[np.ndarray]:
            if n_jobs != 1:
                compile_librosa()
            function = partial(_hear, settings=self.settings)
            for each in map_clips(
                function, sounds, n_jobs=n_jobs, total=len(sounds), description="features"
            ):
                # The spectrograms go to disk at once.
                heard.append(each._replace(mel=each.mel[:0]))
                yield each.mel

        gathered = gather(mels(), spool_dir=spool_dir)
        usable = np.flatnonzero([not each.reason for each in heard])
        probabilities = np.full((len(sounds), len(self.labels)), np.nan)
        if len(usable) == 0:
            return probabilities, heard
        components = np.full((len(sounds), self._n_components), np.nan, np.float32)
        summaries = np.stack([heard[index].summary for index in usable]).astype(np.float64)
        components[usable] = self._projector.transform(summaries)
        names = [sound.name for sound in sounds]
        clips = Clips(usable, names, gathered, components, self._mel_statistics)
        settings = self.settings
        look = {"views": settings.views, "inference": settings.inference, "seed": settings.seed}
        folds = range(1, settings.n_folds + 1)
        batches = [view_batches(clips, **look, fold=fold) for fold in folds]
        with self._predicting:
            networks = self._networks(batches[0].n_looks)
            logs = [
                predict(network, views, settings.inference)
                for network, views in zip(networks, batches, strict=True)
            ]
        probabilities[usable] = geometric_mean(logs)[usable]
        return probabilities, heard

    def _networks(self, n_looks: int) -> "Iterator[Network]":
        """The network of one fold after the other."""
        from fsat_kedro.inference.runtimes import OpenVINONetwork, uses_openvino

        if not uses_openvino(self.settings.inference, n_looks):
            yield from self._keras_networks()
            return
        if not self._converted:
            self._converted = [OpenVINONetwork(network) for network in self._keras_networks()]
        yield from self._converted

    def _keras_networks(self) -> "Iterator[keras.Model]":
        """The network of one fold after the other. It is one, so that it is traced once."""
        from fsat_kedro.modelling.networks import load_network

        if self._network is None:
            first, *others = self._weight_files
            network = load_network(
                self.settings.model,
                first,
                n_mels=self.settings.log_mel.n_mels,
                n_classes=len(self.labels),
                n_components=self._n_components,
            )
            self._weights = [network.get_weights()]
            for file in others:
                network.load_weights(file)
                self._weights.append(network.get_weights())
            self._network = network
        for weights in self._weights:
            self._network.set_weights(weights)
            yield self._network

    @property
    def _n_components(self) -> int:
        return self._projector[-1].n_components_


def best_tags(probabilities: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """The most probable tags, best first.

    Args:
        probabilities: (n, c); NaN for a rejected sound.
        labels: c names of classes.

    Returns:
        n rows: tag_1, probability_1, … to the third; missing where there is none.
    """
    usable = ~np.isnan(probabilities[:, 0])
    ranks = top_k(np.nan_to_num(probabilities), k=N_TAGS)
    columns = {}
    for place in range(N_TAGS):
        tags = np.full(len(probabilities), None, object)
        shares = np.full(len(probabilities), np.nan)
        if place < len(labels):
            best = ranks[usable, place]
            tags[usable] = np.array(labels, object)[best]
            shares[usable] = probabilities[usable, best]
        columns[f"tag_{place + 1}"] = pd.array(tags, "string")
        columns[f"probability_{place + 1}"] = shares
    return pd.DataFrame(columns)


def weight_files(n_folds: int) -> list[str]:
    """The networks of an ensemble, relative to its folder."""
    return [f"fold_{fold}/mel_pca.weights.h5" for fold in range(1, n_folds + 1)]


def model_files(n_folds: int) -> list[str]:
    """All that an ensemble is made of, relative to its folder."""
    fitted = ["mel_statistics.json", "classes.json", "projector.pkl"]
    return [SETTINGS_FILE, *fitted, *weight_files(n_folds)]


def _hear(sound: Sound, *, settings: TaggerSettings) -> _Heard:
    def open_sound() -> BinaryIO:
        if isinstance(sound.content, bytes):
            return BytesIO(sound.content)
        return open_raw_file(sound.content)

    clip, reason = read_clip(
        open_sound,
        reason=sound.reason,
        suffix=PurePath(sound.name).suffix,
        top_db=settings.trim.top_db,
        max_seconds=settings.decoding.max_seconds,
    )
    warning = "; ".join(clip.warnings)
    if reason:
        nothing = np.zeros((0, settings.log_mel.n_mels), np.float32)
        return _Heard(nothing, np.full(len(feature_names()), np.nan, np.float32), reason, warning)
    mel = np.ascontiguousarray(log_mel(clip.samples, **settings.log_mel.model_dump()).T)
    return _Heard(mel, summary_features(clip.samples), reason, warning)
