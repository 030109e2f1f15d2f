"""Node that downloads the published data set."""

import pandas as pd

from fsat_kedro.data.download import download_release
from fsat_kedro.parameters import Download


def download_files(raw_dir: str, download: Download) -> pd.DataFrame:
    """Download, verify and unpack the files of the record, see `download_release`."""
    return download_release(download.record, raw_dir)
