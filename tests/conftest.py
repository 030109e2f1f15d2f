import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import portalocker
import pytest
from hypothesis import settings
from tiny_backbone import build_tiny_backbone

from whole_runs import TINY, FinishedDemo, make_tiny_project, run_demo

# Some images forbid Python to keep what it compiles. Every process that tests start would then
# compile TensorFlow's modules again: importing them would take 11 s instead of 4.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

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
    """Begin with the longest files: two processes then end at about the same time."""
    first = (
        *("test_project.py", "test_bucket_runs.py", "test_interrupted_runs.py"),
        *("test_runner.py", "test_audioset.py", "audio"),
    )

    def rank(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(first) if name in item.path.parts), len(first))

    items.sort(key=rank)


def run_demo_once(tmp_path_factory: pytest.TempPathFactory, name: str, **options: Any) -> Any:
    """Run a demo that all test processes share, unless one of them has run it before."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as file:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE)
        return run_demo(folder / name, **options)


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """A short run of the demo."""
    return run_demo_once(tmp_path_factory, "demo")


@pytest.fixture(scope="session")
def finished_tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """A short run of the demo in which networks have the tiny backbone."""
    options = {**TINY, "n_jobs": 1}  # Starting more processes would take longer than their work.
    return run_demo_once(tmp_path_factory, "tiny_demo", make_project=make_tiny_project, **options)


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


@pytest.fixture(scope="session")
def tagger_settings() -> Any:
    """Return settings of a small ensemble of two folds."""
    from fsat_kedro.inference.tagger import TaggerSettings

    return TaggerSettings(
        decoding={"max_seconds": 2},
        trim={"top_db": 60},
        log_mel={
            "kind": "librosa",
            "sample_rate": 22050,
            "n_fft": 1764,
            "hop_length": 220,
            "n_mels": 32,
        },
        model={
            "weights": None,
            "width": 0.35,
            "momentum": {"backbone": 0.9, "others": 0.9},
            "precision": "float32",
            "encoder": "mobilenet_v2",
            "frozen_stages": 0,
            "freeze_normalisation": False,
            "summary_features": True,
            "head": "mlp",
        },
        test_time_crops={"n_lengths": 2, "crops_per_length": 2, "subset": "all", "batch_size": 4},
        inference={"runtime": "keras"},
        seed=1,
        n_folds=2,
    )


@pytest.fixture(scope="session")
def tiny_backbone() -> Callable[[], AbstractContextManager[Callable]]:
    """Return a context in which networks have the tiny backbone, and which yields its function."""

    @contextmanager
    def context() -> Iterator[Callable]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fsat_kedro.modelling.mobilenet_v2._load_backbone", build_tiny_backbone)
            yield build_tiny_backbone

    return context


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """An installed Chromium or Chrome, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium or Chrome")
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
