import os
import uuid
from collections.abc import Iterator

import numpy as np
import portalocker
import pytest
from hypothesis import settings

from whole_runs import FinishedDemo, run_demo

# Read by TensorFlow when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A test does not fail because the machine is busy.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Compile librosa's functions in this process first: its cache on disk has no lock."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from fsat_kedro.audio.summary_features import compile_librosa

        compile_librosa()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with complete runs, and end with the runs that are compared to them.

    Two processes that take one file after another then end at about the same time.
    """
    order = {"test_project.py": 0, "test_interrupted_runs.py": 2, "test_bucket_runs.py": 3}
    items.sort(key=lambda item: order.get(item.path.name, 1))


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """A short run of the demo, which all test processes share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "demo.lock").open("w") as file:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE)
        return run_demo(folder / "demo")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Settings of an S3 server on this machine."""
    from s3_server import s3_server

    with s3_server() as settings:
        yield settings


@pytest.fixture
def url(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a url that a test may write to."""
    from fsspec.config import conf
    from s3_server import BUCKET

    monkeypatch.setitem(conf, "s3", s3)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
