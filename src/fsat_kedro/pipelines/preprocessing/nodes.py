"""Nodes from raw files to a table of clips and their trimmed sound."""

import logging
from collections import Counter
from functools import partial
from pathlib import PurePath

import numpy as np
import pandas as pd

from fsat_kedro.audio import TrimmedClip, UnusableClipError, load_trimmed
from fsat_kedro.errors import InputError
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import Decoding, Rejection, Trim
from fsat_kedro.ragged import RaggedArray, gather
from fsat_kedro.rawdata import read_esc50, read_fsdkaggle2018
from fsat_kedro.rawfolder import UnreadableError, open_location

logger = logging.getLogger(__name__)

_READERS = {"fsdkaggle2018": read_fsdkaggle2018, "esc50": read_esc50}


def read_metadata(
    raw_dir: str, dataset: str, demo_clips: pd.DataFrame | None = None, *, split: str
) -> tuple[pd.DataFrame, list[str]]:
    """The table of a split: fname, label, verified, usage, fold, location, reason.

    `demo_clips` is only there for the order of things: the demo is made before it is read.

    Returns:
        The table; and the names of the files among the clips that it does not list.
    """
    listing = _READERS[dataset](raw_dir, split)
    return listing.table, listing.unlisted


def trim_clips(
    metadata: pd.DataFrame, decoding: Decoding, trim: Trim, n_jobs: int, data_dir: str
) -> tuple[RaggedArray, pd.DataFrame]:
    """Decode, check and trim every listed clip.

    Returns:
        The trimmed sound, item i (n_i,) float32 at 44.1 kHz, without a sample for a rejected
        clip; and what became of each clip: fname, status (ok or rejected), reason (why it is
        rejected, or what is odd about one that is not), start and end (the kept interval),
        length (all in samples).
    """
    outcomes: list[dict] = []

    def waves():
        results = map_clips(
            partial(_trim_clip, top_db=trim.top_db, max_seconds=decoding.max_seconds),
            zip(metadata["location"], metadata["reason"], strict=True),
            n_jobs=n_jobs,
            total=len(metadata),
            description="trim clips",
        )
        for clip, status, reason in results:
            outcomes.append(
                {
                    "status": status,
                    "reason": reason,
                    "start": clip.start,
                    "end": clip.end,
                    "length": len(clip.samples),
                }
            )
            yield clip.samples

    audio = gather(waves(), spool_dir=data_dir)
    return audio, metadata[["fname"]].join(pd.DataFrame(outcomes, index=metadata.index))


def report_clips(
    *tables: pd.DataFrame | list, splits: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """What became of the clips of all splits.

    Args:
        tables: the outcomes of every split, then the unlisted names of every split.
        splits: their names.

    Returns:
        The rejected clips: fname, split, reason. The usable ones that are odd: fname, split,
        note. And by split the numbers of listed, rejected, noted and unlisted clips.
    """
    outcomes = pd.concat(dict(zip(splits, tables, strict=False)), names=["split", None])
    outcomes = outcomes.reset_index("split")
    rejected = outcomes["status"] == "rejected"
    noted = ~rejected & (outcomes["reason"] != "")
    columns = ["fname", "split", "reason"]
    counts = {
        split: {
            "listed": int((outcomes["split"] == split).sum()),
            "rejected": int((rejected & (outcomes["split"] == split)).sum()),
            "noted": int((noted & (outcomes["split"] == split)).sum()),
            "unlisted": len(unlisted),
        }
        for split, unlisted in zip(splits, tables[len(splits) :], strict=True)
    }
    return (
        outcomes.loc[rejected, columns],
        outcomes.loc[noted, columns].rename(columns={"reason": "note"}),
        counts,
    )


def accept_clips(
    metadata: pd.DataFrame,
    outcomes: pd.DataFrame,
    rejected_clips: pd.DataFrame,
    rejection: Rejection,
) -> pd.DataFrame:
    """The table of clips that all that follows works with, unless too many are rejected.

    `rejected_clips` is only there for the order of things: it is on disk before the run stops.

    Returns:
        The metadata without location, with status, reason, start, end and length.

    Raises:
        InputError: the share of rejected clips is above the parameter.
    """
    rejected = outcomes["status"] == "rejected"
    if rejected.mean() > rejection.max_share:
        raise InputError(
            f"{rejected.sum()} of {len(rejected)} clips rejected, more than the share of "
            f"{rejection.max_share:g} in rejection.max_share: "
            f"{_most_common(outcomes.loc[rejected, 'reason'])}. "
            "All are in 08_reporting/rejected_clips.csv"
        )
    return metadata.drop(columns=["location", "reason"]).join(outcomes.drop(columns="fname"))


def _most_common(reasons: pd.Series) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in Counter(reasons).most_common(3))


def _trim_clip(
    clip: tuple[str, str], *, top_db: float, max_seconds: float
) -> tuple[TrimmedClip, str, str]:
    """The trimmed clip, ok, and its notes; or an empty one, rejected, and the reason why."""
    location, reason = clip
    nothing = TrimmedClip(np.zeros(0, np.float32), 0, 0)
    if reason:
        return nothing, "rejected", reason
    try:
        with open_location(location) as file:
            suffix = PurePath(location).suffix
            trimmed = load_trimmed(file, top_db=top_db, max_seconds=max_seconds, suffix=suffix)
    except (UnusableClipError, UnreadableError) as error:
        return nothing, "rejected", str(error)
    return trimmed, "ok", "; ".join(trimmed.notes)
