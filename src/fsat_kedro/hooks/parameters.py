"""Checks the parameters before any node runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.hooks import hook_impl
from pydantic import ValidationError

from fsat_kedro.errors import InputError
from fsat_kedro.files import connected, is_url, local_path
from fsat_kedro.modelling.encoders import require_fitting
from fsat_kedro.parameters import RENAMED, NetworkSettings, Parameters, TableColumns

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class ParameterHooks:
    """Check all parameters before any node runs, and have the pipelines built for them."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Raise an error on an unknown key or a wrong value; make the folders absolute."""
        from fsat_kedro.pipeline_registry import set_parameters

        try:
            parameters = dict(context.config_loader["parameters"])
        except MissingConfigException as error:
            conf_source = Path(context.config_loader.conf_source)
            known = sorted(path.name for path in conf_source.iterdir() if path.is_dir())
            raise ClickException(
                f"unknown environment '{context.env}': {conf_source} has {', '.join(known)}"
            ) from error
        try:
            require_fitting(Parameters.model_validate(parameters))
        except ValidationError as error:
            raise ClickException(_readable(error)) from error
        except InputError as error:
            raise ClickException(str(error)) from error
        for folder in ("raw_dir", "data_dir", "cache_dir", "tag_dir"):
            parameters[folder] = _absolute(folder, parameters[folder], context.project_path)
        # The catalog's paths begin with them.
        paths = {name: parameters[name] for name in ("data_dir", "cache_dir")}
        context.config_loader.runtime_params = {**context.config_loader.runtime_params, **paths}
        # Two more for the nodes: a local folder for temporary files, and several groups as one.
        parameters["spool_dir"] = str(local_path(*paths.values()))
        groups = NetworkSettings.model_fields
        parameters["network_settings"] = {name: parameters[name] for name in groups}
        if parameters["demo"] is None:  # The demo writes its data, of both splits and known layout.
            clip_counts = context.config_loader["catalog"]["clip_counts"]["filepath"]
            parameters |= _data_parameters(parameters, clip_counts)
        context.config_loader["parameters"] = parameters
        set_parameters(parameters)


def _data_parameters(parameters: dict, clip_counts: str) -> dict:
    """Return the parameters that the data decide: its layout, its splits, and its own folds.

    They are those of the raw data, else of the outputs of an earlier run, with the file
    `clip_counts` among them. Without either, all is as it is set.
    """
    from fsat_kedro.data.layouts import inspect_raw_data
    from fsat_kedro.pipeline_registry import ALL_SPLITS

    dataset, folds = parameters["dataset"], parameters["folds"]
    columns = TableColumns.model_validate(parameters["table_columns"])
    try:
        dataset, splits, n_folds = inspect_raw_data(parameters["raw_dir"], dataset, columns)
    except InputError:  # The node that reads the raw data, if it runs, raises it again.
        counts = _read_counts(clip_counts)
        splits, n_folds = list(counts) or ALL_SPLITS, counts.get("train", {}).get("own_folds", 0)
    if folds["source"] == "auto" and n_folds:
        folds = {"source": "given", "n_folds": n_folds}
    return {"dataset": dataset, "splits": splits, "folds": folds}


def _read_counts(path: str) -> dict[str, dict]:
    """Read the clip counts of an earlier run by split, none if there are none that can be read."""
    try:
        with connected(path) as (file_system, name):
            return json.loads(file_system.cat_file(name))
    except (InputError, FileNotFoundError, ValueError):  # A run that needs them fails later.
        return {}


def _absolute(name: str, folder: str | None, project_path: Path) -> str | None:
    if folder is None:
        return None
    if is_url(folder):
        if name == "data_dir":
            return folder.rstrip("/")
        raise ClickException(
            f"{name} is {folder}, but has to be a folder: name one with --params {name}=FOLDER; a "
            "mounted bucket also works"
        )
    if folder.startswith("~"):
        raise ClickException(f"{name} is {folder}: write the full path instead of ~")
    return str(project_path / folder)


def _readable(error: ValidationError) -> str:
    """Format what is wrong with the parameters, by name and value."""
    lines = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        if name in RENAMED:
            lines.append(f"parameter '{name}' {RENAMED[name]}")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"unknown parameter '{name}'")
        elif problem["type"] == "missing":
            lines.append(f"parameter '{name}' is not set")
        else:
            lines.append(f"parameter '{name}' is {problem['input']!r}: {problem['msg']}")
    return "; ".join(lines) + ". All parameters are in conf/base/parameters*.yml"
