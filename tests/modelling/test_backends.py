"""The tests of a stage and of an encoder, run again with each other backend that is installed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_stages_and_encoders_work_with_another_backend(backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    files = ("test_training.py", "test_mobilenet_v3.py")
    tests = [str(Path(__file__).with_name(file)) for file in files]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    finished = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
