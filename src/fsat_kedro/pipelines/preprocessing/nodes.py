"""Nodes from raw files to a table of clips and their trimmed sound."""

import logging
from collections import Counter
from functools import partial
from pathlib import PurePath

import pandas as pd

from fsat_kedro.audio.decoding import TrimmedClip, load_or_reject
from fsat_kedro.data.layouts import read_esc50, read_fsdkaggle2018
from fsat_kedro.data.ragged import RaggedArray, gather
from fsat_kedro.data.raw_files import open_location
from fsat_kedro.errors import InputError
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import Decoding, Rejection, Trim

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
    metadata: pd.DataFrame, decoding: Decoding, trim: Trim, n_jobs: int, spool_dir: str
) -> tuple[RaggedArray, pd.DataFrame]:
    """Decode, check and trim every listed clip.

    Returns:
        The trimmed sound, item i (n_i,) float32 at 44.1 kHz, without a sample for a rejected
        clip; and what became of each clip: fname, status (ok or rejected), reason (of a rejected
        clip), note (what is odd about another), start and end (the kept interval), length (all
        in samples).
    """
    decode_results: list[dict] = []

    def waves():
        results = map_clips(
            partial(_trim_clip, top_db=trim.top_db, max_seconds=decoding.max_seconds),
            zip(metadata["location"], metadata["reason"], strict=True),
            n_jobs=n_jobs,
            total=len(metadata),
            description="trim clips",
        )
        for clip, reason in results:
            decode_results.append(
                {
                    "status": "rejected" if reason else "ok",
                    "reason": reason,
                    "warning": "; ".join(clip.warnings),
                    "start": clip.start,
                    "end": clip.end,
                    "length": len(clip.samples),
                }
            )
            yield clip.samples

    audio = gather(waves(), spool_dir=spool_dir)
    return audio, metadata[["fname"]].join(pd.DataFrame(decode_results, index=metadata.index))


def report_clips(
    *, splits: list[str], **tables: pd.DataFrame | list
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """What became of the clips of all splits.

    Args:
        splits: their names.
        tables: for every split `{split}_decode_results` and `{split}_unlisted`.

    Returns:
        The rejected clips: fname, split, reason. The usable ones that are odd: fname, split,
        note. And by split the numbers of listed, rejected, warned and unlisted clips.
    """
    rejected, warned, counts = [], [], {}
    for split in splits:
        decode_results = tables[f"{split}_decode_results"].assign(split=split)
        rejected.append(
            decode_results.loc[decode_results["status"] == "rejected", ["fname", "split", "reason"]]
        )
        warned.append(
            decode_results.loc[decode_results["warning"] != "", ["fname", "split", "warning"]]
        )
        counts[split] = {
            "listed": len(decode_results),
            "rejected": len(rejected[-1]),
            "with_warnings": len(warned[-1]),
            "unlisted": len(tables[f"{split}_unlisted"]),
        }
    return pd.concat(rejected), pd.concat(warned), counts


def accept_clips(
    metadata: pd.DataFrame,
    decode_results: pd.DataFrame,
    rejected_clips: pd.DataFrame,
    rejection: Rejection,
) -> pd.DataFrame:
    """The table of clips that all that follows works with, unless too many are rejected.

    `rejected_clips` is only there for the order of things: it is on disk before the run stops.

    Returns:
        The metadata without location, with status, reason, note, start, end and length.

    Raises:
        InputError: the share of rejected clips is above the parameter.
    """
    rejected = decode_results["status"] == "rejected"
    if rejected.mean() > rejection.max_fraction:
        raise InputError(
            f"{rejected.sum()} of {len(rejected)} clips rejected, more than the share of "
            f"{rejection.max_fraction:g} in rejection.max_fraction: "
            f"{_most_common(decode_results.loc[rejected, 'reason'])}. All are in "
            "08_reporting/rejected_clips.csv: mend them and run again (without "
            "--only-missing-outputs), or raise rejection.max_fraction"
        )
    return metadata.drop(columns=["location", "reason"]).join(decode_results.drop(columns="fname"))


def _most_common(reasons: pd.Series) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in Counter(reasons).most_common(3))


def _trim_clip(
    clip: tuple[str, str], *, top_db: float, max_seconds: float
) -> tuple[TrimmedClip, str]:
    location, reason = clip
    try:
        return load_or_reject(
            partial(open_location, location),
            reason=reason,
            suffix="" if reason else PurePath(location).suffix,
            top_db=top_db,
            max_seconds=max_seconds,
        )
    except Exception as error:
        raise RuntimeError(f"clip {location}: {error}") from error
