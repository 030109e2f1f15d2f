"""Nodes that list the sounds of a folder and tag them."""

import logging

import pandas as pd

from fsat_kedro.data.raw_files import RawFolder, printable
from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import Sound, Tagger

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
    rejected = tags["reason"] != ""
    logger.info("%d sounds tagged, %d rejected", len(tags) - rejected.sum(), rejected.sum())
    return tags
