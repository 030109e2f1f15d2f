"""Nodes that fetch the published data set."""

import pandas as pd

from fsat_kedro.data.download import download_release
from fsat_kedro.parameters import Download


def download_files(raw_dir: str, download: Download) -> pd.DataFrame:
    """Fetch, check and unpack the files of the record into the raw folder.

    Returns:
        A row a file: file, bytes, md5, url, path.

    Raises:
        InputError: a file cannot be fetched, is wrong or unsafe, or finds no room.
    """
    return download_release(download.record, raw_dir)
