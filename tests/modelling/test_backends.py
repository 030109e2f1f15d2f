"""The tests of a stage, run again with every other Keras backend that is installed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_stage_trains_and_resumes_with_another_backend(backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    tests = Path(__file__).with_name("test_training.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests)]
    finished = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
