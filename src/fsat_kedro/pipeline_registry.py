"""Which pipelines there are; how many folds and splits they have is read from the parameters."""

from __future__ import annotations

import os

from kedro.config import OmegaConfigLoader
from kedro.framework.project import settings
from kedro.pipeline import Pipeline

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

_SPLITS = {"fsdkaggle2018": ["train", "test"], "esc50": ["train"]}


class _RunParameters:
    """The parameters of the run that is being prepared, noted by a hook."""

    current: dict | None = None


def note_parameters(parameters: dict) -> None:
    """Have the pipelines built for these parameters."""
    _RunParameters.current = parameters


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines by name; `__default__` is all of them in order, but for download and tag."""
    parameters = _RunParameters.current or configured_parameters(os.getenv("KEDRO_ENV"))
    splits = _SPLITS[parameters["dataset"]]
    n_folds = parameters["folds"]["n_folds"]
    demo = parameters["demo"] is not None
    steps = {
        "preprocessing": preprocessing.create_pipeline(splits, demo=demo),
        "features": features.create_pipeline(splits),
        "training": training.create_pipeline(n_folds),
        "inference": inference.create_pipeline(n_folds if "test" in splits else 0),
        "reporting": reporting.create_pipeline(splits),
    }
    first = demo_data.create_pipeline()
    default = sum(steps.values(), first if demo else Pipeline([]))
    return {
        "download": download.create_pipeline(),
        "demo_data": first,
        **steps,
        "tag": tag.create_pipeline(),
        "__default__": default,
    }


def configured_parameters(env: str | None) -> dict:
    """The parameters in `conf/`, for commands that prepare no run, such as `kedro registry`."""
    loader = OmegaConfigLoader(
        conf_source=settings.CONF_SOURCE,
        env=env,
        **settings.CONFIG_LOADER_ARGS,
    )
    return loader["parameters"]
