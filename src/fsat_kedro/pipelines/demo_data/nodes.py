"""Nodes that make the synthetic data set."""

from pathlib import Path

import pandas as pd

from fsat_kedro.data.synthetic import make_demo
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Demo


def make_demo_clips(raw_dir: str, demo: Demo | None, seed: int) -> pd.DataFrame:
    """Write the synthetic clips and their tables into the raw folder.

    Returns:
        A row a clip: fname, label, split.

    Raises:
        InputError: the environment has no demo, or the raw folder holds other clips.
    """
    if demo is None:
        raise InputError("this environment has no demo: use kedro run --env demo")
    return make_demo(Path(raw_dir), n_train=demo.n_train, n_test=demo.n_test, seed=seed)
