"""The trained ensemble as a tagger: from sound files to ranked tags.

It needs only the files that training writes to `06_models`. Axes: n sounds, c classes.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePath
from tempfile import gettempdir
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from fsat_kedro.audio.decoding import TrimmedClip, read_clip
from fsat_kedro.audio.log_mel import log_mel
from fsat_kedro.audio.projection import Projector, load_projector
from fsat_kedro.audio.summary_features import compile_librosa, feature_names, summary_features
from fsat_kedro.data.ragged import gather
from fsat_kedro.data.raw_files import open_raw_file
from fsat_kedro.errors import InputError
from fsat_kedro.inference.ensemble import geometric_mean, predict_crops, rank_labels
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import Decoding, Inference, LogMel, Model, TestTimeCrops, Trim

# Keras takes seconds to import, and the catalog is read by every command.
if TYPE_CHECKING:
    import keras
    import openvino

    from fsat_kedro.inference.runtimes import Network, OpenVINONetwork
    from fsat_kedro.modelling.crops import Clips

SETTINGS_FILE = "tagger.json"
_WEIGHTS = ".weights.h5"
_CONVERTED = ".openvino.zip"

_UNLIKE = "unlike every training clip: its tags may be wrong"


class TaggerSettings(BaseModel):
    """The settings of an ensemble's training and predictions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoding: Decoding
    trim: Trim
    log_mel: LogMel
    model: Model
    test_time_crops: TestTimeCrops
    inference: Inference
    seed: int
    n_folds: PositiveInt


class Manifest(TaggerSettings):
    """The content of `tagger.json`: the settings, and what the other files have to be.

    Attributes:
        digests: SHA-256 of each part of the ensemble, by its path in the folder.
    """

    digests: dict[str, str]

    def require_same(self, folder: Path, files: Iterable[str]) -> None:
        """Raise an error if parts in a folder are not those that the ensemble was described with.

        Raises:
            InputError: a part is missing, damaged, or of another training.
        """
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise InputError(
                f"the ensemble in {folder} is incomplete: {', '.join(missing)} missing. "
                "Finish the training: kedro run --only-missing-outputs"
            )
        different = [file for file in files if digest(folder / file) != self.digests.get(file)]
        if different:
            raise InputError(
                f"the ensemble in {folder} is not of one training: {', '.join(different)} changed "
                f"since {SETTINGS_FILE} was written. After new features, train again: kedro run. "
                "If a file is damaged, remove it: kedro run --only-missing-outputs makes it anew. "
                "If you replaced it on purpose: kedro run --nodes training.describe_tagger"
            )


class _MelStatistics(BaseModel):
    """The content of `mel_statistics.json`."""

    minimum: FiniteFloat
    maximum: FiniteFloat
    bounded: bool = True
    shortest: PositiveInt
    longest: PositiveInt


class _Classes(BaseModel):
    """The part of `classes.json` that tagging needs."""

    labels: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class Sound:
    """A sound to tag.

    Attributes:
        name: file name. What is drawn for a sound depends on it, as in the pipelines.
        content: location of the file (see `raw_files`), its bytes, or samples (n,) as of
            `decoding`, which are not trimmed.
        reason: why it must not be read; "" if it may be.
    """

    name: str
    content: str | bytes | np.ndarray
    reason: str = ""


class ExtractedFeatures(NamedTuple):
    """The features of a sound; of a rejected one, only the reason.

    Attributes:
        mel: log-mel spectrogram (t, m).
        summary: summary features; empty if the networks have no use for them.
        reason: of the rejection; "" for none.
        warning: what is odd about the sound; "" for nothing.
    """

    mel: np.ndarray
    summary: np.ndarray
    reason: str
    warning: str


class SoundPredictions(NamedTuple):
    """What an ensemble says of n sounds.

    Attributes:
        probabilities: (n, c); NaN for a rejected sound.
        remarks: n rows: reason of the rejection or "", warning or "".
    """

    probabilities: np.ndarray
    remarks: pd.DataFrame


class Tagger:
    """A trained ensemble: feature extraction, projection, and the networks of all folds.

    Attributes:
        labels: names of the c classes.
        settings: of its training and predictions.
        mel_statistics: as in `Clips`.
        projector: of the summary features; None if the networks have no use for them.
    """

    def __init__(
        self,
        folder: Path,
        manifest: "Manifest",
        labels: list[str],
        mel_statistics: dict[str, float],
        projector: Projector | None,
    ) -> None:
        self.settings: TaggerSettings = manifest
        self.labels = labels
        self._folder = folder
        self._digests = manifest.digests
        self.mel_statistics = mel_statistics
        self.projector = projector
        self._network: keras.Model | None = None
        self._weights: list[list[np.ndarray]] = []
        self._converted: list[OpenVINONetwork] = []
        # There is one Keras network, which gets the weights of one fold after the other. Features
        # wait too: those of several requests at once would take as many times the memory.
        self._working = Lock()

    @classmethod
    def load(cls, folder: Path, *, max_seconds: float = np.inf) -> "Tagger":
        """Load the ensemble that a finished training wrote to `06_models`.

        Args:
            folder: local folder of the ensemble.
            max_seconds: of each sound that are used, if that is less than the training's setting.

        Raises:
            InputError: there is none, or it is incomplete, damaged, a mixture of several trainings
                or of another version of the project.
        """
        manifest = read_manifest(folder)
        names = parts(manifest.n_folds, manifest.model.stages[-1])
        manifest.require_same(folder, names.values())
        files = {name: folder / file for name, file in names.items()}
        try:
            statistics = _MelStatistics.model_validate_json(files["mel_statistics"].read_bytes())
            classes = _Classes.model_validate_json(files["classes"].read_bytes())
            projector = _load_projector(files["projector"]) if "projector" in files else None
        except ValueError as error:
            raise InputError(
                f"the ensemble in {folder} cannot be used: {_describe(error)}. Train again: kedro "
                "run"
            ) from error
        decoding = Decoding(max_seconds=min(max_seconds, manifest.decoding.max_seconds))
        manifest = manifest.model_copy(update={"decoding": decoding})
        return cls(folder, manifest, classes.labels, statistics.model_dump(), projector)

    def tag(
        self, sounds: Sequence[Sound], *, n_jobs: int = 1, spool_dir: Path | str | None = None
    ) -> pd.DataFrame:
        """Tag sounds. A sound that cannot be used is rejected, and the others are tagged.

        Args:
            sounds: at least one.
            n_jobs: processes for their features; −1 for one per core.
            spool_dir: a folder with room for all their spectrograms; None for the system's.

        Returns:
            A row for each sound: fname; tag_1, probability_1, … tag_3, probability_3, missing if
            there are fewer classes or the sound was rejected; reason of the rejection or "";
            warning (what is odd about the sound) or "".
        """
        predictions = self.predict(sounds, n_jobs=n_jobs, spool_dir=spool_dir)
        names = pd.DataFrame({"fname": [sound.name for sound in sounds]})
        ranked = rank_labels(predictions.probabilities, self.labels)
        return pd.concat([names, ranked, predictions.remarks], axis=1)

    def predict(
        self,
        sounds: Sequence[Sound],
        *,
        n_jobs: int = 1,
        spool_dir: Path | str | None = None,
        whole: bool = False,
        description: str = "features",
    ) -> SoundPredictions:
        """Predict sounds, with what `tag` has to say of each.

        Args:
            sounds: at least one.
            n_jobs: see `tag`.
            spool_dir: see `tag`.
            whole: predict each sound once by each network, whatever crops the settings say.
            description: text before the progress bar; "" for no bar.
        """
        from fsat_kedro.modelling.crops import Clips

        features: list[ExtractedFeatures] = []

        def mels() -> Iterator[np.ndarray]:
            if n_jobs != 1 and self.settings.model.summary_features:
                compile_librosa()
            function = partial(extract_features, settings=self.settings)
            for each in map_clips(
                function, sounds, n_jobs=n_jobs, total=len(sounds), description=description
            ):
                # Spectrograms are large: `gather` writes them to disk at once.
                features.append(each._replace(mel=each.mel[:0]))
                yield each.mel

        with self._working:
            gathered = gather(mels(), spool_dir=spool_dir or gettempdir())
            usable = np.flatnonzero([not each.reason for each in features])
            probabilities = np.full((len(sounds), len(self.labels)), np.nan)
            if len(usable):
                components = self._project(features, usable) if self.projector else None
                names = [sound.name for sound in sounds]
                clips = Clips(usable, names, gathered, components, self.mel_statistics)
                probabilities[usable] = self._predict_clips(clips, whole)[usable]
        return SoundPredictions(probabilities, pd.DataFrame(features)[["reason", "warning"]])

    def _project(self, features: list[ExtractedFeatures], usable: np.ndarray) -> np.ndarray:
        """Return components (n, p), NaN for unusable sounds, and warn of sounds that are unlike."""
        assert self.projector is not None
        components = np.full((len(features), self._n_components or 0), np.nan, np.float32)
        summaries = np.stack([features[index].summary for index in usable]).astype(np.float64)
        components[usable] = self.projector.transform(summaries)
        for index in usable[self.projector.find_unlike(summaries)]:
            features[index] = _add_warning(features[index], _UNLIKE)
        return components

    def _predict_clips(self, clips: "Clips", whole: bool) -> np.ndarray:
        from fsat_kedro.modelling.crops import test_time_batches

        crops, seed = self.settings.test_time_crops, self.settings.seed
        if whole:
            crops = crops.model_copy(update={"subset": "whole"})
        folds = range(1, self.settings.n_folds + 1)
        batches = [test_time_batches(clips, crops, seed=(seed, fold)) for fold in folds]
        networks = self._networks(batches[0].n_crops)
        return geometric_mean(list(map(predict_crops, networks, batches)))

    def _networks(self, n_crops: int) -> "Iterator[Network]":
        """Yield the network of one fold after the other."""
        from fsat_kedro.inference.runtimes import uses_openvino

        if not self.is_converted():
            if not uses_openvino(self.settings.inference, n_crops):
                yield from self._keras_networks()
                return
            self._convert()
        yield from self._converted

    def prepare(self) -> None:
        """Get ready for many calls: convert the networks for OpenVINO, if it may be used.

        They are saved beside the weights, where possible: the next `Tagger` of this ensemble needs
        neither the conversion nor Keras.
        """
        from fsat_kedro.inference.runtimes import MANY_CROPS, save_converted, uses_openvino

        with self._working:
            if self.is_converted() or not uses_openvino(self.settings.inference, MANY_CROPS):
                return
            for file, model in zip(self._weight_files, self._convert(), strict=True):
                with suppress(OSError):  # The folder may be read-only.
                    save_converted(
                        model, self._folder / _converted(file), origin=self._origin(file)
                    )

    def load_network(self, fold: int, *, precision: str | None = None) -> "keras.Model":
        """Load the Keras network of a fold.

        Args:
            fold: its number, from 1.
            precision: of the layers' arithmetic; None for that of the training.
        """
        from fsat_kedro.modelling.networks import load_network

        model = self.settings.model
        return load_network(
            model if precision is None else model.model_copy(update={"precision": precision}),
            self._folder / self._weight_files[fold - 1],
            n_mels=self.settings.log_mel.n_mels,
            n_classes=len(self.labels),
            n_components=self._n_components,
        )

    def files(self) -> list[str]:
        """Return the files of the ensemble, relative to its folder, with converted networks."""
        kept = parts(self.settings.n_folds, self.settings.model.stages[-1]).values()
        converted = map(_converted, self._weight_files)
        found = [file for file in converted if (self._folder / file).exists()]
        return [SETTINGS_FILE, *kept, *found]

    def is_converted(self) -> bool:
        """Return whether there are converted networks, which need no Keras. This loads them."""
        from fsat_kedro.inference.runtimes import OpenVINONetwork, load_converted

        if self._converted or self.settings.inference.runtime == "keras":
            return bool(self._converted)
        models = []
        for file in self._weight_files:
            model = load_converted(self._folder / _converted(file), origin=self._origin(file))
            if model is None:
                return False
            models.append(model)
        self._converted = list(map(OpenVINONetwork, models))
        return True

    def _convert(self) -> "list[openvino.Model]":
        """Convert the networks, and keep them."""
        from fsat_kedro.inference.runtimes import OpenVINONetwork, convert

        models = list(map(convert, self._keras_networks()))
        self._converted = list(map(OpenVINONetwork, models))
        # They take no more memory than they have to.
        self._network, self._weights = None, []
        return models

    def _origin(self, file: str) -> str:
        """Return a digest of what the network of a weight file is converted from."""
        described = f"{self.settings.model.model_dump_json()} {self._digests[file]}"
        return sha256(described.encode()).hexdigest()

    def _keras_networks(self) -> "Iterator[keras.Model]":
        """Yield one network with the weights of one fold after the other: it is traced once."""
        from fsat_kedro.modelling.networks import load_weights

        if self._network is None:
            network = self.load_network(1)
            self._weights = [network.get_weights()]
            for file in self._weight_files[1:]:
                load_weights(network, self._folder / file)
                self._weights.append(network.get_weights())
            self._network = network
        for weights in self._weights:
            self._network.set_weights(weights)
            yield self._network

    @property
    def _n_components(self) -> int | None:
        return len(self.projector.axes) if self.projector else None

    @property
    def _weight_files(self) -> list[str]:
        return weight_files(self.settings.n_folds, self.settings.model.stages[-1])


def weight_files(n_folds: int, stage: str = "mel_pca") -> list[str]:
    """Return the weight files of an ensemble, relative to its folder.

    Args:
        n_folds: number of networks.
        stage: the last one of the training.
    """
    return [f"fold_{fold}/{stage}{_WEIGHTS}" for fold in range(1, n_folds + 1)]


def parts(n_folds: int, stage: str = "mel_pca") -> dict[str, str]:
    """Return what an ensemble consists of besides `tagger.json`: file in its folder by dataset.

    Arguments as for `weight_files`.
    """
    files = enumerate(weight_files(n_folds, stage), start=1)
    return {
        "mel_statistics": "mel_statistics.json",
        "classes": "classes.json",
        **({"projector": "projector.npz"} if stage == "mel_pca" else {}),
        **{f"{stage}_weights_{fold}": file for fold, file in files},
    }


def _converted(weight_file: str) -> str:
    """Return where `Tagger.prepare` keeps the converted network of a weight file."""
    return weight_file.replace(_WEIGHTS, _CONVERTED)


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read `tagger.json` in a local folder.

    Raises:
        InputError: it is missing, damaged, or of another version of the project.
    """
    file = folder / SETTINGS_FILE
    write_again = (
        "Write it again: kedro run --nodes training.describe_tagger, with the settings of the "
        "training"
    )
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"no trained ensemble in {folder}: {SETTINGS_FILE} is missing. Train first (kedro "
            "run), or set data_dir to the results of a training"
        ) from error
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}. {write_again}") from error
    if not isinstance(content, dict) or "digests" not in content:
        raise InputError(
            f"the ensemble in {folder} was written by an earlier version of the project, and "
            "cannot be read any more. Train again: kedro run"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{file} was written by another version of the project. {write_again}"
        ) from error


def _load_projector(path: Path) -> Projector:
    with path.open("rb") as file:
        projector = load_projector(file)
    if len(projector.mean) != len(feature_names()):
        raise InputError(f"the projector is for {len(projector.mean)} features")
    return projector


def _describe(error: ValueError) -> str:
    """Describe an error in a line, which those of pydantic do not."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))} is {problem['input']!r}: {problem['msg']}"


def _add_warning(features: ExtractedFeatures, warning: str) -> ExtractedFeatures:
    return features._replace(warning="; ".join(filter(None, [features.warning, warning])))


def extract_features(sound: Sound, *, settings: TaggerSettings) -> ExtractedFeatures:
    """Decode, validate and trim a sound, and compute its features."""
    clip, reason = _read(sound, settings)
    warning = "; ".join(clip.warnings)
    if reason:
        no_mel = np.zeros((0, settings.log_mel.n_mels), np.float32)
        return ExtractedFeatures(no_mel, np.empty(0), reason, warning)
    mel = np.ascontiguousarray(log_mel(clip.samples, **settings.log_mel.model_dump()).T)
    summary = summary_features(clip.samples) if settings.model.summary_features else np.empty(0)
    return ExtractedFeatures(mel, summary, reason, warning)


def _read(sound: Sound, settings: TaggerSettings) -> tuple[TrimmedClip, str]:
    """Return a trimmed clip, or the reason why it cannot be used."""
    content = sound.content
    if isinstance(content, np.ndarray):
        return TrimmedClip(content, 0, len(content)), sound.reason

    def open_sound() -> BinaryIO:
        return BytesIO(content) if isinstance(content, bytes) else open_raw_file(content)

    return read_clip(
        open_sound,
        reason=sound.reason,
        suffix=PurePath(sound.name).suffix,
        top_db=settings.trim.top_db,
        max_seconds=settings.decoding.max_seconds,
    )
