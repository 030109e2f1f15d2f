import os

import numpy as np
import pytest

# Read by TensorFlow when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config: pytest.Config) -> None:
    """Compile what librosa compiles before several processes do: its cache on disk has no lock."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from fsat_kedro.summary import compile_librosa

        compile_librosa()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole runs first: the longest file, beside which another process has all others."""
    items.sort(key=lambda item: item.path.name != "test_project.py")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
