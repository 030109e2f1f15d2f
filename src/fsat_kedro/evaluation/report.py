"""One page about a run that opens without a network: scores, plots, and clips to hear.

Pictures and sounds are in the page itself. Axes: n clips or samples, c classes, t frames, m mel
bands.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps
from PIL import Image

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation.metrics import N_TAGS
from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified, labelled_clips
from fsat_kedro.parameters import Report

_DECIBELS = 80  # From the darkest colour of a spectrogram to the brightest.
_COLUMNS = 640  # Of a spectrogram, at most.
_PEAK = 0.9  # Of every sound, so that quiet ones are heard too.
_PLOT_DPI = 150
_SCREEN_DPI = 96
_WIDE = 700  # CSS pixels of a plot.


@dataclass(frozen=True)
class Split:
    """Clips with what was predicted for them.

    Attributes:
        name: what they are called in the page.
        clips: the table of the split, n rows.
        probabilities: (n, c).
        folds: (n,) the fold that held each clip out; 0 if none did.
        audio: item i (n_i,), trimmed, at 44.1 kHz.
        mels: item i (t_i, m), dB.
    """

    name: str
    clips: pd.DataFrame
    probabilities: np.ndarray
    folds: np.ndarray
    audio: RaggedArray
    mels: RaggedArray


@dataclass(frozen=True)
class Heard:
    """What the page holds of a clip.

    Attributes:
        picture: its spectrogram, a data URI.
        sound: a data URI.
        seconds: length of both.
    """

    picture: str
    sound: str
    seconds: float


@dataclass(frozen=True)
class Plot:
    """A figure with what helps to read it.

    Attributes:
        title: what it shows, in a few words.
        caption: how to read it.
        picture: a data URI.
        width: in CSS pixels.
        height: in CSS pixels.
    """

    title: str
    caption: str
    picture: str
    width: int
    height: int

    @property
    def is_wide(self) -> bool:
        """Whether it needs the width of the page."""
        return self.width > _WIDE


def render_report(
    *,
    name: str,
    facts: Sequence[str],
    scores: Sequence[Mapping[str, object]],
    pairs: Sequence[Mapping[str, object]],
    plots: Sequence[Plot],
    splits: Sequence[Split],
    labels: Sequence[str],
    settings: Report,
    frame: float,
) -> str:
    """The page.

    Args:
        name: of what it is about.
        facts: about that, a few words each.
        scores: `metrics.SCORES` of each set of clips, and clips, what it is called.
        pairs: of classes that are confused, most frequent first: true and predicted label, clips,
            share of the true class's.
        plots: in the order that they are shown in.
        splits: the training clips, predicted out of fold; then others.
        labels: of the c classes.
        settings: how much the page holds.
        frame: s from a frame of a log-mel to the next.
    """
    tables = [find_misclassified(x.probabilities, x.clips, labels, x.folds) for x in splits]
    firsts = [table.head(settings.max_clips).assign(split=i) for i, table in enumerate(tables)]
    listed = pd.concat(firsts).sort_values("probability_1", ascending=False, kind="stable")
    shown = listed.to_dict("records")
    room = int(1e6 * settings.max_megabytes) - sum(len(plot.picture) for plot in plots)
    sounds, room = _take_while_fits(
        (_hear(splits[clip["split"]], clip["row"], settings, frame) for clip in shown), room
    )
    missed = [
        _describe(clip, splits[clip["split"]], heard)
        for clip, heard in zip(shown, sounds, strict=False)
    ]
    return _render(
        name=name,
        facts=facts,
        scores=scores,
        pairs=pairs,
        plots=plots,
        missed=missed,
        n_missed={
            split.name: (len(table), int(labelled_clips(split.clips).sum()))
            for split, table in zip(splits, tables, strict=True)
        },
        cut=any(clip["seconds"] > clip["heard"].seconds for clip in missed),
        examples=_clear_examples(splits[0], labels, missed, settings, frame, room),
        verified_known=splits[0].clips["verified"].notna().any(),
        labels=labels,
        settings=settings,
    )


def embed_plot(png: bytes, title: str, caption: str) -> Plot:
    """A figure saved as PNG at 150 dots an inch."""
    with Image.open(io.BytesIO(png)) as image:
        width, height = (round(side / _PLOT_DPI * _SCREEN_DPI) for side in image.size)
    return Plot(title, caption, _data_uri("image/png", png), width, height)


def draw_mel(mel: np.ndarray) -> str:
    """A log-mel spectrogram (t, m) in dB as a data URI, low frequencies below.

    The colours reach from 80 dB below its loudest value.
    """
    levels = np.clip((mel - mel.max()) / _DECIBELS + 1, 0, 1)
    image = Image.fromarray(np.round(255 * levels.T[::-1]).astype(np.uint8))
    if len(mel) > _COLUMNS:
        image = image.resize((_COLUMNS, mel.shape[1]), Image.Resampling.BOX)
    colours = np.round(255 * np.array(colormaps["magma"].colors)).astype(np.uint8)
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def encode_wave(wave: np.ndarray) -> str:
    """A wave (n,) at 44.1 kHz as a data URI, all of them as loud.

    It is MP3, which every browser plays, or FLAC where libsndfile is built without that.
    """
    mp3 = "MP3" in soundfile.available_formats()
    loudest = np.abs(wave).max()
    file = io.BytesIO()
    louder = wave * (_PEAK / loudest if loudest else 1)
    soundfile.write(file, louder, SAMPLE_RATE, format="MP3" if mp3 else "FLAC")
    return _data_uri("audio/mpeg" if mp3 else "audio/flac", file.getvalue())


def _hear(split: Split, row: int, settings: Report, frame: float) -> Heard:
    """The beginning of a clip."""
    wave = split.audio.reader(row)()[: round(settings.max_seconds * SAMPLE_RATE)]
    seconds = len(wave) / SAMPLE_RATE
    mel = split.mels.reader(row)()[: max(1, round(seconds / frame))]
    return Heard(draw_mel(mel), encode_wave(wave), seconds)


def _take_while_fits(sounds: Iterable[Heard], room: int) -> tuple[list[Heard], int]:
    """The first ones that fit into so many bytes, and how many bytes are left."""
    taken = []
    for heard in sounds:
        size = len(heard.picture) + len(heard.sound)
        if size > room:
            break
        taken.append(heard)
        room -= size
    return taken, room


def _describe(clip: dict, split: Split, heard: Heard) -> dict:
    """What the page tells of a missed clip, a row of `find_misclassified`."""
    tags = [
        {"label": clip[f"tag_{place}"], "probability": clip[f"probability_{place}"], "place": place}
        for place in range(1, N_TAGS + 1)
        if not pd.isna(clip[f"tag_{place}"])
    ]
    known = not pd.isna(clip["rank"])
    if not known:
        tags.append({"label": clip["label"], "probability": None, "place": None})
    elif clip["rank"] > len(tags):
        true = {"label": clip["label"], "probability": clip["probability"], "place": clip["rank"]}
        tags.append(true)
    return {
        "fname": clip["fname"],
        "label": clip["label"],
        "verified": None if pd.isna(clip["verified"]) else bool(clip["verified"]),
        "split": split.name,
        "fold": clip["fold"],
        "seconds": clip["seconds"],
        "doubt": 1 - clip["probability"] if known else 1,
        "tags": tags,
        "heard": heard,
    }


def _clear_examples(
    split: Split,
    labels: Sequence[str],
    missed: list[dict],
    settings: Report,
    frame: float,
    room: int,
) -> dict[str, dict]:
    """A clear clip of each class by its label; first of those that missed clips are about."""
    about = [tag["label"] for clip in missed for tag in clip["tags"]]
    order = sorted(range(len(labels)), key=lambda index: -about.count(labels[index]))
    rows = find_exemplars(split.probabilities, split.clips, labels)
    sounds, _ = _take_while_fits(
        (_hear(split, rows[index], settings, frame) for index in order), room
    )
    taken = dict(zip(order, sounds, strict=False))
    return {
        labels[index]: {
            "index": index,
            "fname": split.clips["fname"].iloc[rows[index]],
            "probability": split.probabilities[rows[index], index],
            "heard": taken[index],
        }
        for index in sorted(taken)
    }


def _render(**content: object) -> str:
    environment = Environment(
        loader=PackageLoader("fsat_kedro.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    templates = files("fsat_kedro.evaluation") / "templates"
    script = (templates / "report.js").read_text("utf-8")
    # No other script runs in the page, whatever stands in a label.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.jinja").render(
        script=script,
        digest=digest,
        style=(templates / "report.css").read_text("utf-8"),
        **content,
    )


def _percent(share: float) -> str:
    """Of a probability, as many digits as keep what is not sure from being 0 or 100 %."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}" if share < 0.01 or share > 0.99 else f"{share:.0%}"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
