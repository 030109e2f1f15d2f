"""Nodes that list the sounds of a folder, and tag them as clips or as long recordings."""

import logging

import pandas as pd

from fsat_kedro.data.raw_files import RawFolder, printable
from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import Sound, Tagger
from fsat_kedro.inference.timeline import audacity_labels, tag_recording
from fsat_kedro.parameters import Tag

logger = logging.getLogger(__name__)


def list_sounds(tag_dir: str | None) -> pd.DataFrame:
    """List the files below a folder: fname (relative path), path, and reason not to read it."""
    if tag_dir is None:
        raise InputError(
            "tag_dir is not set: set it to a folder of sounds, --params tag_dir=FOLDER"
        )
    files = RawFolder(tag_dir, parameter="tag_dir").list_files()
    if not files:
        raise InputError(f"tag_dir {printable(tag_dir)} has no files")
    # A path may have bytes that are not UTF-8, which a column of text cannot hold.
    return pd.DataFrame(files, columns=["fname", "path", "reason"], dtype=object)


def tag_sounds(tagger: Tagger, sounds: pd.DataFrame, n_jobs: int, spool_dir: str) -> pd.DataFrame:
    """Tag the sounds with the trained ensemble, see `Tagger.tag`."""
    listed = [Sound(*row) for row in sounds.itertuples(index=False)]
    tags = tagger.tag(listed, n_jobs=n_jobs, spool_dir=spool_dir)
    _log_rejected(tags)
    return tags


def tag_recordings(
    tagger: Tagger, sounds: pd.DataFrame, tag: Tag, n_jobs: int
) -> tuple[dict[str, str], pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make a timeline of each sound, see `tag_recording`.

    Returns:
        Label tracks of Audacity by file name; the table of recordings with the reason of a
        rejection and warnings; the windows and the segments of all recordings.
    """
    tracks, rows = {}, []
    windows: list[pd.DataFrame] = []
    segments: list[pd.DataFrame] = []
    for row in sounds.itertuples(index=False):
        sound = Sound(*row)
        timeline = tag_recording(tagger, sound, tag, n_jobs=n_jobs)
        rows.append((sound.name, len(timeline.segments), timeline.reason, timeline.warning))
        for tables, table in [(windows, timeline.windows), (segments, timeline.segments)]:
            tables.append(table.assign(fname=sound.name)[["fname", *table.columns]])
        if not timeline.reason:
            tracks[sound.name] = audacity_labels(timeline.segments)
    recordings = pd.DataFrame(rows, columns=["fname", "segments", "reason", "warning"])
    _log_rejected(recordings)
    joined = [pd.concat(tables, ignore_index=True) for tables in (windows, segments)]
    return tracks, recordings, joined[0], joined[1]


def _log_rejected(sounds: pd.DataFrame) -> None:
    rejected = sounds["reason"] != ""
    logger.info("%d sounds tagged, %d rejected", len(sounds) - rejected.sum(), rejected.sum())
