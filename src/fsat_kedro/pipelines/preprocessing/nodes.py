"""Nodes from raw files to a table of clips and their trimmed sound."""

import logging
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd

from fsat_kedro.audio import TrimmedClip, UnusableClipError, load_trimmed
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import Trim
from fsat_kedro.ragged import RaggedArray, gather
from fsat_kedro.rawdata import UnreadableError, open_location, read_esc50, read_fsdkaggle2018

logger = logging.getLogger(__name__)

_READERS = {"fsdkaggle2018": read_fsdkaggle2018, "esc50": read_esc50}


def read_metadata(
    raw_dir: str, dataset: str, demo_clips: pd.DataFrame | None = None, *, split: str
) -> pd.DataFrame:
    """The table of a split: fname, label, verified, usage, fold, location, reason.

    `demo_clips` is only there for the order of things: the demo is made before it is read.
    """
    return _READERS[dataset](raw_dir, split).table


def trim_clips(
    metadata: pd.DataFrame, trim: Trim, n_jobs: int, data_dir: str
) -> tuple[RaggedArray, pd.DataFrame]:
    """Decode, check and trim every listed clip.

    Returns:
        The trimmed sound, item i (n_i,) float32 at 44.1 kHz, without a sample for a rejected
        clip; and the metadata with status (ok or rejected), reason, start and end (the kept
        interval), length (all in samples).
    """
    outcomes: list[dict] = []

    def waves():
        results = map_clips(
            partial(_trim_clip, top_db=trim.top_db),
            zip(metadata["location"], metadata["reason"], strict=True),
            n_jobs=n_jobs,
            total=len(metadata),
            description="trim clips",
        )
        for clip, reason in results:
            outcomes.append(
                {
                    "status": "rejected" if reason else "ok",
                    "reason": reason,
                    "start": clip.start,
                    "end": clip.end,
                    "length": len(clip.samples),
                }
            )
            yield clip.samples

    audio = gather(waves(), spool_dir=data_dir)
    _log_rejected(outcomes)
    clips = metadata.drop(columns=["location", "reason"]).join(
        pd.DataFrame(outcomes, index=metadata.index)
    )
    return audio, clips


def _log_rejected(outcomes: list[dict]) -> None:
    reasons = Counter(outcome["reason"] for outcome in outcomes if outcome["reason"])
    if reasons:
        counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        logger.warning("%d of %d clips rejected: %s", reasons.total(), len(outcomes), counts)


def _trim_clip(place: tuple[str, str], *, top_db: float) -> tuple[TrimmedClip, str]:
    """The trimmed clip, or an empty one and the reason why."""
    nothing = TrimmedClip(np.zeros(0, np.float32), 0, 0)
    location, reason = place
    if reason:
        return nothing, reason
    try:
        with open_location(location) as file:
            return load_trimmed(file, top_db=top_db), ""
    except (UnreadableError, UnusableClipError) as error:
        return nothing, str(error)
