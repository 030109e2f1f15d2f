"""Settings of the Kedro project."""

import os

from fsat_kedro.hooks.checkpoints import CheckpointHooks
from fsat_kedro.hooks.damage import DamageHooks
from fsat_kedro.hooks.errors import ReadableErrorHooks
from fsat_kedro.hooks.initial_weights import InitialWeightsHooks
from fsat_kedro.hooks.mlflow import MlflowHooks
from fsat_kedro.hooks.outputs import OutputHooks
from fsat_kedro.hooks.parameters import ParameterHooks
from fsat_kedro.hooks.progress import ProgressHooks
from fsat_kedro.hooks.weights import WeightsHooks

# Libraries read these when they are imported: no usage reports, no log lines about MLflow's
# database, no progress bar for six small files, and no lines of TensorFlow's C++ code, which logs
# missing GPUs as errors.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HOOKS = (
    ParameterHooks(),
    InitialWeightsHooks(),  # Before a run it follows OutputHooks, which remove unfinished outputs.
    WeightsHooks(),
    OutputHooks(),
    CheckpointHooks(),
    DamageHooks(),
    ProgressHooks(),
    MlflowHooks(),
    ReadableErrorHooks(),
)

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*"]},
    # An environment names what differs from base, down to single keys.
    "merge_strategy": {"parameters": "soft", "mlflow": "soft"},
}
