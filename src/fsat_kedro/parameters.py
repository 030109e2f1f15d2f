"""What can be set: every parameter, its type and its bounds.

The values are in `conf/<environment>/parameters*.yml`; there are no defaults here. A group that
a node asks for (`params:log_mel`) arrives there as the class of the same name.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("neither a number of processes nor −1 for one per core")
    return value


def _ascending(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"{values} are not in ascending order")
    return values


def _none_or_weights(value: object) -> object:
    if value is None or str(value).lower() in {"none", "null", ""}:
        return None
    if value != "imagenet" and not Path(str(value)).is_file():
        raise ValueError(f"'{value}' is neither none, imagenet nor a file that exists")
    return str(value)


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Decoding(_Group):
    """How much of a file is read."""

    max_seconds: Positive
    """What follows in a longer file is left out, so that memory is bounded."""


class Trim(_Group):
    """How silence at both ends of a clip is cut."""

    top_db: Positive
    """dB below the loudest frame that counts as silence."""


class Rejection(_Group):
    """When a run stops over clips that cannot be used."""

    max_fraction: Fraction
    """Of a split's clips; more of them stop the run."""


class LogMel(_Group):
    """How the log-mel spectrogram is computed."""

    sample_rate: Count
    """Hz; the clip is resampled to it."""
    n_fft: Count
    """Samples of a window."""
    hop_length: Count
    """Samples from window to window."""
    n_mels: Annotated[int, Field(ge=32)]
    """Mel bands; the backbone halves them five times."""


class Pca(_Group):
    """How the summary features are projected."""

    n_components: Count
    """Components kept; fewer where there are fewer clips."""


class Folds(_Group):
    """How the training clips are divided."""

    source: Literal["stratified", "given"]
    """Draw folds stratified by label, or take the data set's own."""
    n_folds: Annotated[int, Field(ge=2)]
    """How many."""


class CropLengths(_Group):
    """Which lengths training draws and inference looks at."""

    percentiles: Annotated[tuple[Percentile, Percentile], AfterValidator(_ascending)]
    """Shortest and longest length, as percentiles of the training clips' lengths."""


class Momentum(_Group):
    """How much of its running mean a step of batch normalisation keeps."""

    backbone: Fraction
    """Fraction of its running mean that a step of the backbone's batch normalisation keeps."""
    others: Fraction
    """The same of all other batch normalisations."""


class Model(_Group):
    """The networks."""

    weights: Annotated[str | None, BeforeValidator(_none_or_weights)]
    """The backbone's first weights: null, imagenet, or the path of a `.weights.h5` file."""
    width: Positive
    """Width multiplier of the backbone; ImageNet weights exist for 0.35, 0.5, 0.75, 1, 1.3, 1.4."""
    momentum: Momentum
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    """Of the layers' arithmetic; weights and probabilities are float32."""


class Erase(_Group):
    """Random erasing."""

    probability: Fraction
    """Fraction of clips of which a box is erased."""
    area: Annotated[tuple[Fraction, Fraction], AfterValidator(_ascending)]
    """Smallest and largest share of the spectrogram that a box covers."""
    aspect: Annotated[float, Field(gt=0, le=1)]
    """Smallest ratio of a box's sides; the largest is its inverse."""


class Augmentation(_Group):
    """What is done to the clips of a training batch."""

    shift: Fraction
    """Largest shift in time, as a share of the length."""
    flip: Fraction
    """Fraction of clips played backwards."""
    erase: Erase


class MixupAlpha(_Group):
    """α of each stage's mixup; 0 for none."""

    mel: Annotated[float, Field(ge=0)]
    """α of the beta distribution that mixup draws from in stage mel; 0 for no mixup."""
    mel_pca: Annotated[float, Field(ge=0)]
    """The same of stage mel_pca."""


class CyclicPhase(_Group):
    """A triangular learning rate."""

    epochs: Annotated[int, Field(ge=0)]
    """Of the phase."""
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
    """A learning rate that falls when the validation loss no longer does."""

    epochs: Annotated[int, Field(ge=0)]
    """Of the phase, at most."""
    rate: Positive
    """The learning rate that it begins with."""


class Phases(_Group):
    """The three phases of a stage, in order."""

    cyclic: CyclicPhase
    low: SteadyPhase
    high: SteadyPhase

    @model_validator(mode="after")
    def _not_empty(self) -> "Phases":
        if self.cyclic.epochs + self.low.epochs + self.high.epochs == 0:
            raise ValueError("no phase has an epoch")
        return self


class Plateau(_Group):
    """What a steady phase does when the validation loss stays."""

    min_delta: Annotated[float, Field(ge=0)]
    """The smallest fall of the loss that counts."""
    patience: Count
    """Epochs without one before the rate is lowered."""
    factor: Annotated[float, Field(gt=0, lt=1)]
    """What the rate is multiplied with then."""
    stop_after: Count
    """Epochs without one before the phase ends."""


class Training(_Group):
    """How a stage is trained."""

    batch_size: Count
    """Clips."""
    n_lengths: Count | None
    """Lengths to draw from, at equal steps; null for every one from the shortest to the longest."""
    augmentation: Augmentation
    selection: Literal["best", "last"]
    """Whether a phase ends with its best weights by validation loss, or with its last."""
    validate_every: Count
    """Epochs from one validation to the next; 1 where the best weights are selected."""
    mixup_alpha: MixupAlpha
    phases: Phases
    plateau: Plateau

    @model_validator(mode="after")
    def _selects_from_all(self) -> "Training":
        if self.selection == "best" and self.validate_every > 1:
            raise ValueError("selection best needs a validation after every epoch")
        return self


class Views(_Group):
    """How often a network looks at a clip."""

    n_lengths: Count
    """Lengths at equal steps between the shortest and the longest of training."""
    n_spans: Count
    """Random spans of each length."""
    batch_size: Count
    """Clips at a time."""


class Inference(_Group):
    """How clips are looked at for scores and tags."""

    views: Literal["exact", "thinned", "shared"]
    """All views, each by itself; one span of every other length; or all, as windows of what the
    convolutions make of the whole clip."""
    runtime: Literal["auto", "keras", "openvino"]
    """What runs the networks. `auto`: OpenVINO where it is installed, there is no GPU, Keras has
    TensorFlow, and there are enough clips; else Keras."""

    @model_validator(mode="after")
    def _can_share(self) -> "Inference":
        if self.views == "shared" and self.runtime == "openvino":
            raise ValueError("shared views are for Keras: set inference.runtime to keras or auto")
        return self


class Report(_Group):
    """How much the page about a run holds."""

    max_clips: Annotated[int, Field(ge=0)]
    """Missed clips of each split."""
    max_seconds: Positive
    """Of each sound; what follows is left out."""
    max_megabytes: Positive
    """Of plots, pictures and sounds; what does not fit is left out."""


class Demo(_Group):
    """The synthetic data set."""

    n_train: Count
    """Training clips."""
    n_test: Count
    """Test clips, beside three empty ones."""


class Download(_Group):
    """The published data set."""

    record: Annotated[str, Field(pattern=r"^https?://")]
    """Address of its Zenodo record's JSON."""


class Parameters(_Group):
    """All of them."""

    dataset: Literal["fsdkaggle2018", "esc50"]
    """Layout of the raw folder."""
    raw_dir: str
    """Where clips and labels are read; relative to the project."""
    data_dir: str
    """Where everything is written: a folder, relative to the project, or an address (s3://…)."""
    cache_dir: str
    """Where copies of what is at such an address are kept; relative to the project."""
    tag_dir: str | None
    """A folder of anybody's sounds, for pipeline tag; relative to the project."""
    n_jobs: Annotated[int, AfterValidator(_not_zero)]
    """Processes for work on clips; −1 for one per core."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Of all that is drawn."""
    decoding: Decoding
    trim: Trim
    rejection: Rejection
    log_mel: LogMel
    pca: Pca
    folds: Folds
    crop_lengths: CropLengths
    model: Model
    training: Training
    views: Views
    inference: Inference
    report: Report
    download: Download
    demo: Demo | None
    """None where the raw folder holds clips already."""
