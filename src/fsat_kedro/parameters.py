"""Every parameter, with its type, its bounds and its description.

The values are in `conf/<environment>/parameters*.yml`; there are no defaults here. A node that
names a group (`params:log_mel`) gets it as the class of the same name.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]

IMAGENET_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
"""Widths of MobileNetV2 that Keras has ImageNet weights for."""

KALDI_WINDOW = 0.025
"""Seconds of a window of the log-mel `kaldi`."""

LOG_MEL_RANGES: dict[str, tuple[float, float] | None] = {"librosa": None, "kaldi": (-4.5, 0.5)}
"""Values of each kind of log-mel that become 0 and 1; None for those of the training clips."""

RENAMED = {
    "lengths": "is now crop_lengths",
    "views": "is now test_time_crops (n_lengths, crops_per_length instead of n_spans, batch_size)",
    "inference.views": "is now test_time_crops.subset (exact is all; shared was removed)",
    "rejection.max_share": "is now rejection.max_fraction",
    "training.plateau.stop_after": "is now training.early_stopping.patience",
}
"""Keys of earlier versions, for the error that refuses them."""


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("set a number of processes, or −1 for one per core")
    return value


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"{values} are not in ascending order")
    return values


def _distinct(values: tuple[int, ...]) -> tuple[int, ...]:
    if len({*values}) < len(values):
        raise ValueError(f"{values} are not all different")
    return values


def _none_or_weights(value: object) -> object:
    if value is None or str(value).lower() in {"none", "null", ""}:
        return None
    if value not in {"imagenet", "audioset"} and not Path(str(value)).is_file():
        raise ValueError(f"'{value}' is neither none, imagenet, audioset nor a file that exists")
    return str(value)


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TableColumns(_Group):
    """Columns of a table of clips, the layout `table`."""

    file: str | None
    """Column of file names or paths; null: fname, filename, file or path."""
    label: str | None
    """Column of labels; null: label, category or class."""


class Decoding(_Group):
    """The part of a file that is read."""

    max_seconds: Positive
    """Seconds to read; the rest of a longer file is left out, which bounds the memory."""


class Trim(_Group):
    """Trimming of silence at both ends of a clip."""

    top_db: Positive
    """A frame this many dB below the loudest counts as silence."""


class Rejection(_Group):
    """The limit of clips that cannot be used."""

    max_fraction: Fraction
    """Largest fraction of a split's clips that may be rejected; more stop the run."""


class LogMel(_Group):
    """The log-mel spectrogram."""

    kind: Literal["librosa", "kaldi"]
    """`librosa`: in dB, scaled by the range of the training clips. `kaldi`: the log-mel of mn04,
    mn10 and mn20: pre-emphasis 0.97, windows of 25 ms, Kaldi's mel bands to 15 kHz, ln(power +
    1e-5), scaled so that −4.5 and 0.5 become 0 and 1."""
    sample_rate: Count
    """Hz; clips are resampled to it."""
    n_fft: Count
    """Samples in a window."""
    hop_length: Count
    """Samples between the starts of consecutive windows."""
    n_mels: Annotated[int, Field(ge=32)]
    """Mel bands; the backbone halves them five times."""

    @model_validator(mode="after")
    def _has_room_for_a_window(self) -> "LogMel":
        window = round(KALDI_WINDOW * self.sample_rate)
        if self.kind == "kaldi" and self.n_fft < window:
            raise ValueError(f"n_fft is {self.n_fft}, less than the {window} samples of a window")
        return self


class Pca(_Group):
    """The projection of the summary features."""

    n_components: Count
    """Principal components; fewer if there are fewer clips."""


class Folds(_Group):
    """The folds of the training clips."""

    source: Literal["auto", "stratified", "given"]
    """`stratified` draws folds stratified by label, with the clips of a recording in one fold if
    the data set names recordings; `given` takes the data set's own folds; `auto` takes these if
    there are any, else it draws folds."""
    n_folds: Annotated[int, Field(ge=2)]
    """Number of folds. With `auto`, the data set's own number has precedence."""


class CropLengths(_Group):
    """The lengths of crops in training and inference."""

    percentiles: Annotated[tuple[Percentile, Percentile], AfterValidator(_ascending)]
    """Shortest and longest crop, as percentiles of the training clips' lengths."""
    seconds: Annotated[tuple[Positive, Positive], AfterValidator(_ascending)] | None
    """Shortest and longest crop in seconds, whatever the clips' lengths; null for the
    percentiles."""


class Momentum(_Group):
    """Momentum of batch normalisation."""

    backbone: Fraction
    """Fraction of the running mean that a step keeps, in the batch normalisations of mobilenet_v2's
    backbone; 0.99 in those of mn04, mn10 and mn20."""
    others: Fraction
    """The same in all other batch normalisations."""


class Model(_Group):
    """The networks."""

    encoder: str
    """mobilenet_v2, or mn04, mn10, mn20 (`--env audioset`), of 1, 5 and 18 million parameters."""
    weights: Annotated[str | None, BeforeValidator(_none_or_weights)]
    """Initial weights of the encoder: imagenet for mobilenet_v2, audioset for mn04, mn10 and mn20,
    downloaded once; the path of a file of them (`.h5` of MobileNetV2 without top, `.pt` of
    EfficientAT); or null for random ones."""
    width: Positive
    """Width multiplier of mobilenet_v2; ImageNet weights exist for 0.35, 0.5, 0.75, 1, 1.3, 1.4."""
    momentum: Momentum
    frozen_stages: Annotated[int, Field(ge=0)]
    """First stages of mn04, mn10 or mn20 that are not trained, of 17: the first convolution, 15
    blocks, the last convolution."""
    freeze_normalisation: bool
    """Whether the batch normalisations of mn04, mn10 or mn20 keep their weights and statistics."""
    # By default, because an ensemble trained before this parameter lacks it.
    pooled_stages: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_distinct)
    ] = ()
    """Stages of mn04, mn10 or mn20, from 0 to 16, whose means over bands and frames are the head's
    features; none for the last stage alone."""
    summary_features: bool
    """Whether there is a second stage, whose network has the projected summary features as a second
    input. If not, they are not computed."""
    head: Literal["mlp", "linear"]
    """The layers from pooled features to classes: `mlp` of 1536 and 384 units, or `linear`."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    """Precision of the layers' arithmetic; weights and probabilities are always float32."""

    @model_validator(mode="after")
    def _has_weights_of_its_width(self) -> "Model":
        if self.weights == "imagenet" and self.width not in IMAGENET_WIDTHS:
            raise ValueError(
                f"there are no ImageNet weights of width {self.width:g}: set a width of "
                f"{', '.join(map(str, IMAGENET_WIDTHS))}, or weights to null or to a file"
            )
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """Name the stages, in order; the networks of the last one predict."""
        return ("mel", "mel_pca") if self.summary_features else ("mel",)


class Erase(_Group):
    """Random erasing."""

    probability: Fraction
    """Fraction of clips in which a box is erased."""
    area: Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)]
    """Smallest and largest fraction of the spectrogram that a box covers."""
    aspect: Annotated[float, Field(gt=0, le=1)]
    """Smallest ratio of a box's sides; the largest is its inverse."""


class Augmentation(_Group):
    """Augmentation of the clips of a training batch."""

    shift: Fraction
    """Largest shift in time, as a fraction of the length."""
    flip: Fraction
    """Fraction of clips played backwards."""
    erase: Erase
    roll: Fraction
    """Fraction of crops that are rolled: cut at a random frame, and the parts exchanged."""
    gain: Annotated[float, Field(ge=0)]
    """Largest change of a crop's level, up or down, as a fraction of the range that becomes
    0..1."""
    time_mask: Fraction
    """Largest fraction of a crop's frames in a mask, one for each crop."""
    frequency_mask: Fraction
    """Largest fraction of a crop's mel bands in a mask, one for each crop."""


class MixupAlpha(_Group):
    """α of each stage's mixup; 0 for none."""

    mel: Annotated[float, Field(ge=0)]
    """α of the beta distribution of mixup in stage mel; 0 for no mixup."""
    mel_pca: Annotated[float, Field(ge=0)]
    """The same in stage mel_pca."""


class CyclicPhase(_Group):
    """A phase with a triangular learning rate."""

    epochs: Annotated[int, Field(ge=0)]
    """Number of epochs."""
    half_cycle: Positive
    """Epochs from the lowest rate to the highest."""
    minimum_rate: Positive
    """The lowest learning rate."""
    maximum_rate: Positive
    """The highest learning rate."""

    @model_validator(mode="after")
    def _ascends(self) -> "CyclicPhase":
        _ascending((self.minimum_rate, self.maximum_rate))
        return self


class SteadyPhase(_Group):
    """A phase whose rate is reduced when the validation loss stops falling."""

    epochs: Annotated[int, Field(ge=0)]
    """Largest number of epochs."""
    rate: Positive
    """The initial learning rate."""


class CosinePhase(_Group):
    """A phase whose rate rises linearly from 0, and then falls to 0 as half a cosine."""

    epochs: Annotated[int, Field(ge=0)]
    """Number of epochs."""
    warm_up: Annotated[float, Field(ge=0)]
    """Epochs in which the rate rises."""
    rate: Positive
    """The highest learning rate."""


Phase: TypeAlias = CyclicPhase | SteadyPhase | CosinePhase


class Phases(_Group):
    """The phases of a stage, in order. One of 0 epochs is left out."""

    cyclic: CyclicPhase
    low: SteadyPhase
    high: SteadyPhase
    cosine: CosinePhase


class Plateau(_Group):
    """Reaction of a steady phase to a validation loss that stops falling, with selection `best`."""

    min_delta: Annotated[float, Field(ge=0)]
    """A fall of the loss that is greater counts as an improvement."""
    patience: Count
    """Epochs without improvement before the rate is reduced."""
    factor: Annotated[float, Field(gt=0, lt=1)]
    """Factor by which the rate is reduced."""


class EarlyStopping(_Group):
    """End of a steady phase whose validation loss stopped falling, with selection `best`."""

    min_delta: Annotated[float, Field(ge=0)]
    """A fall of the loss that is greater counts as an improvement."""
    patience: Count
    """Epochs without improvement before the phase ends."""


class LabelNoise(_Group):
    """Training in spite of wrong labels. Without effect on verified ones, or if there are none."""

    rounds: Annotated[int, Field(ge=0)]
    """Rounds of self-verification: each label that is not verified counts in training as much as
    clips that were not its own make it probable; 0 for all labels to count the same."""
    robustness: Fraction
    """q of the generalised cross-entropy of clips whose label is not verified: 0 for the plain
    cross-entropy, 1 for the mean absolute error, which no single clip can dominate."""
    unknown: Literal["verified", "unverified"]
    """What the labels of a data set are that does not say whether they are verified. Corrected ones
    always are."""

    @property
    def is_on(self) -> bool:
        """Return whether verified and unverified labels are treated differently."""
        return self.rounds > 0 or self.robustness > 0


class Training(_Group):
    """The training of a stage."""

    batch_size: Count
    """Clips in a batch."""
    n_lengths: Count | None
    """Number of crop lengths to draw from, at equal steps; null for all lengths."""
    augmentation: Augmentation
    selection: Literal["best", "last"]
    """Weights at the end of a phase: `best` by validation loss, or `last`."""
    validate_every: Count
    """Epochs from one validation to the next; 1 if selection is best."""
    mixup_alpha: MixupAlpha
    label_noise: LabelNoise
    weight_decay: Annotated[float, Field(ge=0)]
    """Fraction of the weights of dense layers and convolutions that a step takes off, times the
    learning rate (AdamW); 0 for Adam."""
    probe: bool
    """Whether to begin with a logistic regression on the pooled features of a pretrained encoder:
    its weights become those of the head, which has to be linear."""
    probe_only: bool
    """Whether to end with it: a tagger in seconds, and no phase."""
    probe_fraction: Fraction
    """After a probe, what its weights count in those of stage mel, which are a mean of the weights
    before and after all phases (WiSE-FT); 0 for those after."""
    phases: Phases
    plateau: Plateau
    early_stopping: EarlyStopping

    @model_validator(mode="after")
    def _selects_from_all(self) -> "Training":
        if self.selection == "best" and self.validate_every > 1:
            raise ValueError("selection best needs a validation after every epoch")
        return self

    @model_validator(mode="after")
    def _trains(self) -> "Training":
        if self.probe_only and not self.probe:
            raise ValueError("probe_only needs probe: true")
        if not self.probe and not self.planned_phases():
            raise ValueError("no phase has an epoch")
        return self

    def planned_phases(self) -> list[tuple[str, Phase]]:
        """Return the names and settings of the phases that have epochs, in order."""
        return [] if self.probe_only else [phase for phase in self.phases if phase[1].epochs]


class TestTimeCrops(_Group):
    """The crops of a clip that each fold predicts."""

    __test__ = False  # Its name begins like that of a test, which pytest would collect.

    n_lengths: Count
    """Number of crop lengths, at equal steps from the shortest to the longest."""
    crops_per_length: Count
    """Random crops of each length."""
    subset: Literal["all", "thinned", "whole"]
    """`all` of these crops; `thinned`: one crop of every other length; `whole`: the whole clip
    once, in equal pieces if it is longer than 3,000 frames."""
    batch_size: Count
    """Crops in a batch."""


class Inference(_Group):
    """The computation of predictions."""

    runtime: Literal["auto", "keras", "openvino"]
    """The library that runs the networks. `auto` is OpenVINO if it is installed, Keras runs on
    TensorFlow without a GPU, and there are enough clips; else Keras."""


class NetworkSettings(_Group):
    """The groups of parameters that all nodes with networks need: `params:network_settings`.

    Users set the groups themselves; a hook collects them.
    """

    model: Model
    training: Training
    test_time_crops: TestTimeCrops
    inference: Inference
    seed: int
    cache_dir: str


class Tag(_Group):
    """Tagging of recordings that are longer than a clip."""

    timeline: bool
    """Whether pipeline `tag` makes a timeline of each file, instead of three tags."""
    window_seconds: Positive
    """Length of the windows that a recording is cut into. Each is tagged as a clip."""
    hop_seconds: Positive
    """From the start of a window to that of the next."""
    threshold: Annotated[float, Field(gt=0, le=1)]
    """Smallest probability of a segment's tag. Below 0.5, segments may overlap."""

    @model_validator(mode="after")
    def _has_no_gaps(self) -> "Tag":
        if self.hop_seconds > self.window_seconds:
            raise ValueError(
                f"hop_seconds is {self.hop_seconds:g}, more than the {self.window_seconds:g} of "
                "window_seconds: what lies between two windows would not be tagged"
            )
        return self


class Report(_Group):
    """The size of the report."""

    max_clips: Annotated[int, Field(ge=0)]
    """Misclassified clips of each split to show."""
    max_seconds: Positive
    """Seconds of each sound; the rest is left out."""
    max_megabytes: Positive
    """Size of all plots, pictures and sounds; those beyond it are left out."""


class Demo(_Group):
    """The synthetic data set."""

    n_train: Count
    """Training clips."""
    n_test: Count
    """Test clips, plus three empty ones."""


class Download(_Group):
    """The published data set."""

    record: Annotated[str, Field(pattern=r"^https?://")]
    """URL of the JSON of its Zenodo record."""


class Parameters(_Group):
    """All parameters."""

    dataset: Literal["auto", "fsdkaggle2018", "esc50", "urbansound8k", "folder_per_class", "table"]
    """Layout of the raw folder; `auto` recognises it."""
    raw_dir: str
    """Folder of clips and labels, relative to the project."""
    data_dir: str
    """Folder of all outputs, relative to the project, or a url (s3://…)."""
    cache_dir: str
    """Folder of downloaded weights, and of local copies if data_dir is a url, relative to the
    project."""
    tag_dir: str | None
    """Folder of sounds for pipeline tag, relative to the project."""
    n_jobs: Annotated[int, AfterValidator(_not_zero)]
    """Processes that compute features; −1 for one per core."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of all random draws."""
    table_columns: TableColumns
    decoding: Decoding
    trim: Trim
    rejection: Rejection
    log_mel: LogMel
    pca: Pca
    folds: Folds
    crop_lengths: CropLengths
    model: Model
    training: Training
    test_time_crops: TestTimeCrops
    inference: Inference
    tag: Tag
    report: Report
    download: Download
    demo: Demo | None
    """None if the raw folder has clips already."""
