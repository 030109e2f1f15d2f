"""Node that writes the synthetic data set."""

from pathlib import Path

import pandas as pd

from fsat_kedro.data.synthetic import write_synthetic_dataset
from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Demo


def make_demo_clips(raw_dir: str, demo: Demo | None, seed: int) -> pd.DataFrame:
    """Write the synthetic clips and their tables, see `write_synthetic_dataset`."""
    if demo is None:
        raise InputError("this environment has no demo: use kedro run --env demo")
    return write_synthetic_dataset(
        Path(raw_dir), n_train=demo.n_train, n_test=demo.n_test, seed=seed
    )
