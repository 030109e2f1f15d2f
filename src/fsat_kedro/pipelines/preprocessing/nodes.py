"""Nodes that read tables of clips, and decode and trim the clips."""

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from fsat_kedro.audio.decoding import TrimmedClip, read_clip
from fsat_kedro.audio.summary_features import compile_librosa
from fsat_kedro.data.folds import count_folds
from fsat_kedro.data.label_corrections import DROPPED, correct_labels
from fsat_kedro.data.layouts import layouts, recognise_layout
from fsat_kedro.data.ragged import RaggedArray, gather
from fsat_kedro.data.raw_files import RawFolder, open_raw_file, printable
from fsat_kedro.errors import InputError
from fsat_kedro.parallel import map_clips
from fsat_kedro.parameters import Decoding, Rejection, TableColumns, Trim

logger = logging.getLogger(__name__)


def read_metadata(
    raw_dir: str,
    dataset: str,
    table_columns: TableColumns,
    demo_clips: pd.DataFrame | None = None,
    *,
    split: str,
) -> tuple[pd.DataFrame, list[str]]:
    """Read the table of a split, and the names of the files that it does not list.

    The labels of the training clips are corrected, see `label_corrections`.

    `demo_clips` is unused: as an input it makes Kedro write the demo's files before this node.
    """
    name = recognise_layout(RawFolder(raw_dir), table_columns) if dataset == "auto" else dataset
    table, unlisted = layouts(table_columns)[name].read(raw_dir, split)
    logger.info("%s: layout %s, %s", printable(raw_dir), name, _describe_clips(table, split))
    return correct_labels(table, raw_dir) if split == "train" else table, unlisted


def trim_clips(
    metadata: pd.DataFrame, decoding: Decoding, trim: Trim, n_jobs: int, spool_dir: str
) -> tuple[RaggedArray, pd.DataFrame]:
    """Decode, validate and trim every listed clip.

    Returns:
        The trimmed audio: item i is (n_i,) float32 at 44.1 kHz, without samples for a rejected
        clip. And the decode results, a row per clip: fname, status (ok or rejected), reason (of
        the rejection), warning, start and end (of the kept interval) and length, in samples.
    """
    decode_results: list[dict] = []

    def waves() -> Iterator[np.ndarray]:
        if n_jobs != 1:
            compile_librosa()
        results = map_clips(
            partial(_read_clip, top_db=trim.top_db, max_seconds=decoding.max_seconds),
            zip(metadata["path"], metadata["reason"], strict=True),
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


def report_clips(*, splits: list[str], **tables: Any) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """List rejected clips and warnings, and count the clips of each split.

    The tables are `{split}_metadata`, `{split}_decode_results` and `{split}_unlisted` of every
    split.

    Returns:
        The rejected clips: fname, split, reason. The usable clips with warnings: fname, split,
        warning. And by split the numbers of listed, rejected and unlisted clips, of warnings, and
        of corrections of each kind and of the data set's own folds if there are any.
    """
    rejected, warned, counts = [], [], {}
    for split in splits:
        results = tables[f"{split}_decode_results"].assign(split=split)
        rejected.append(results.loc[results["status"] == "rejected", ["fname", "split", "reason"]])
        warned.append(results.loc[results["warning"] != "", ["fname", "split", "warning"]])
        counts[split] = {
            "listed": len(results),
            "rejected": len(rejected[-1]),
            "with_warnings": len(warned[-1]),
            "unlisted": len(tables[f"{split}_unlisted"]),
            **_count_corrections(tables[f"{split}_metadata"]),
            **_count_own_folds(tables[f"{split}_metadata"]),
        }
    return pd.concat(rejected), pd.concat(warned), counts


def accept_clips(
    metadata: pd.DataFrame,
    decode_results: pd.DataFrame,
    rejected_clips: pd.DataFrame,
    rejection: Rejection,
) -> pd.DataFrame:
    """Join metadata and decode results, unless too many clips are rejected.

    `rejected_clips` is unused: as an input it makes Kedro save that table before this node fails.

    Returns:
        The metadata without path, with status, reason, warning, start, end and length.

    Raises:
        InputError: the fraction of rejected clips is above the parameter. Those that label
            corrections drop do not count.
    """
    rejected = (decode_results["status"] == "rejected") & (decode_results["reason"] != DROPPED)
    if rejected.mean() > rejection.max_fraction:
        reasons = Counter(decode_results.loc[rejected, "reason"]).most_common(3)
        raise InputError(
            f"{rejected.sum()} of {len(rejected)} clips rejected, more than "
            f"rejection.max_fraction ({rejection.max_fraction:g}) allows: "
            f"{', '.join(f'{printable(reason)} ({count})' for reason, count in reasons)}. All are "
            "listed in 08_reporting/rejected_clips.csv: repair them and run again (without "
            "--only-missing-outputs), or raise rejection.max_fraction"
        )
    return metadata.drop(columns=["path", "reason"]).join(decode_results.drop(columns="fname"))


def _count_corrections(metadata: pd.DataFrame) -> dict[str, int]:
    """Count the corrected labels of a split by kind of correction; none of the test split."""
    if "correction" not in metadata:
        return {}
    kinds = metadata["correction"].value_counts().drop("", errors="ignore")
    return {f"labels_{kind}": int(count) for kind, count in kinds.items()}


def _count_own_folds(metadata: pd.DataFrame) -> dict[str, int]:
    """Count the data set's own folds, for later runs without the raw data."""
    n_folds = count_folds(metadata["fold"])
    return {"own_folds": n_folds} if n_folds else {}


def _describe_clips(table: pd.DataFrame, split: str) -> str:
    """Return for example "train: 400 clips of 10 labels in 5 folds, 320 groups"."""
    n_labels, n_folds, n_groups = (table[x].nunique() for x in ("label", "fold", "group"))
    return (
        f"{split}: {len(table)} clips"
        + (f" of {n_labels} labels" if n_labels else "")
        + (f" in {n_folds} folds" if n_folds else "")
        + (f", {n_groups} groups" if n_groups else "")
    )


def _read_clip(
    clip: tuple[str, str], *, top_db: float, max_seconds: float
) -> tuple[TrimmedClip, str]:
    """Read the clip of a path, unless there is a reason against it; errors name the path."""
    path, reason = clip
    try:
        return read_clip(
            partial(open_raw_file, path),
            reason=reason,
            suffix="" if reason else PurePath(path).suffix,
            top_db=top_db,
            max_seconds=max_seconds,
        )
    except Exception as error:
        raise RuntimeError(f"clip {printable(path)}: {error}") from error
