"""All pipelines, built for the folds and splits that the parameters set."""

from __future__ import annotations

import os

from kedro.config import OmegaConfigLoader
from kedro.framework.project import settings
from kedro.pipeline import Pipeline

from fsat_kedro.parameters import Model
from fsat_kedro.pipelines import (
    demo_data,
    download,
    features,
    inference,
    preprocessing,
    reporting,
    tag,
    training,
)

ALL_SPLITS = ["train", "test"]
"""The splits of pipelines that are listed, or whose data is not known yet."""

_run_parameters: dict = {}


def set_parameters(parameters: dict) -> None:
    """Set the parameters of the run, for which the pipelines are built."""
    _run_parameters.clear()
    _run_parameters.update(parameters)


def register_pipelines() -> dict[str, Pipeline]:
    """Return all pipelines by name.

    `__default__` is all in order, except download and tag. `predictions` is all of it that follows
    the training of the networks.
    """
    parameters = _run_parameters or configured_parameters(os.getenv("KEDRO_ENV"))
    splits = parameters.get("splits", ALL_SPLITS)
    n_folds = parameters["folds"]["n_folds"]
    demo = parameters["demo"] is not None
    summary_features = parameters["model"]["summary_features"]
    stages = Model.model_validate(parameters["model"]).stages
    demo_pipeline = demo_data.create_pipeline()
    steps = {
        "preprocessing": preprocessing.create_pipeline(splits, demo=demo),
        "features": features.create_pipeline(splits, summary_features=summary_features),
        "training": training.create_pipeline(
            n_folds,
            stages,
            probe=parameters["training"]["probe"],
            verify_labels=parameters["training"]["label_noise"]["rounds"] > 0,
        ),
        "inference": inference.create_pipeline(n_folds if "test" in splits else 0, stages),
        "reporting": reporting.create_pipeline(splits, summary_features=summary_features),
    }
    weights = [f"{stages[-1]}_weights_{fold}" for fold in range(1, n_folds + 1)]
    after_training = steps["training"].from_inputs(*weights)
    return {
        "download": download.create_pipeline(),
        "demo_data": demo_pipeline,
        **steps,
        "predictions": after_training + steps["inference"] + steps["reporting"],
        "tag": tag.create_pipeline(timeline=parameters["tag"]["timeline"]),
        "__default__": sum(steps.values(), demo_pipeline if demo else Pipeline([])),
    }


def configured_parameters(env: str | None) -> dict:
    """Return the parameters in `conf/`, for commands without hooks such as `kedro registry`."""
    loader = OmegaConfigLoader(settings.CONF_SOURCE, env, **settings.CONFIG_LOADER_ARGS)
    return loader["parameters"]
