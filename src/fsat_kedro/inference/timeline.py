"""Stand-in until main has the timeline."""

from typing import NamedTuple

import pandas as pd

from fsat_kedro.inference.tagger import Sound, Tagger
from fsat_kedro.parameters import Tag


class Timeline(NamedTuple):
    """Windows and segments."""

    windows: pd.DataFrame
    segments: pd.DataFrame
    reason: str
    warning: str


def tag_recording(tagger: Tagger, sound: Sound, settings: Tag, *, n_jobs: int = 1) -> Timeline:
    """Tag windows."""
    from fsat_kedro.audio.decoding import SAMPLE_RATE, UnusableClipError, decode
    from fsat_kedro.data.raw_files import open_raw_file
    import io, soundfile

    try:
        wave, _ = decode(open_raw_file(str(sound.content)), max_seconds=3600)
    except UnusableClipError as error:
        return Timeline(pd.DataFrame(), pd.DataFrame(), str(error), "")
    rows, names = [], []
    step = round(settings.window_seconds * SAMPLE_RATE)
    for start in range(0, len(wave), step):
        f = io.BytesIO()
        soundfile.write(f, wave[start : start + step], SAMPLE_RATE, format="WAV")
        names.append(Sound("w.wav", f.getvalue()))
        rows.append((start / SAMPLE_RATE, min(len(wave), start + step) / SAMPLE_RATE))
    tags = tagger.tag(names)
    windows = pd.concat([pd.DataFrame(rows, columns=["start", "end"]), tags.drop(columns="fname")], axis=1)
    s = windows[windows["probability_1"] >= settings.threshold]
    segments = s[["start", "end"]].assign(label=s["tag_1"], probability=s["probability_1"])
    return Timeline(windows, segments.reset_index(drop=True), "", "")


def audacity_labels(segments: pd.DataFrame) -> str:
    """Format."""
    return "".join(f"{x.start:.3f}\t{x.end:.3f}\t{x.label}\n" for x in segments.itertuples())
