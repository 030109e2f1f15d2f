"""Layouts of raw data, each read into one table of clips per split."""

from fsat_kedro.data.layouts.clips import SplitTable
from fsat_kedro.data.layouts.published import read_esc50, read_fsdkaggle2018, read_urbansound8k
from fsat_kedro.data.layouts.recognition import RawData, inspect_raw_data, layouts, recognise_layout

__all__ = [
    "RawData",
    "SplitTable",
    "inspect_raw_data",
    "layouts",
    "read_esc50",
    "read_fsdkaggle2018",
    "read_urbansound8k",
    "recognise_layout",
]
