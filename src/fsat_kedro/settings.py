"""Settings of the Kedro project."""

from fsat_kedro.hooks import MlflowHooks, ParameterHooks, ReadableErrorHooks

HOOKS = (ParameterHooks(), MlflowHooks(), ReadableErrorHooks())

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*"]},
    # An environment names what differs from base, down to single keys.
    "merge_strategy": {"parameters": "soft", "mlflow": "soft"},
}
