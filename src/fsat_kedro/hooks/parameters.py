"""Checks the parameters before any node runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from click import ClickException
from kedro.config import MissingConfigException
from kedro.framework.hooks import hook_impl
from pydantic import ValidationError

from fsat_kedro.datasets.stored_dataset import in_store
from fsat_kedro.parameters import RENAMED, NetworkSettings, Parameters
from fsat_kedro.store import Store, folder_of, is_address

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext


class ParameterHooks:
    """Checks all parameters before any node runs, and has the pipelines built for them."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Fail on an unknown key or a wrong value; make the folders absolute."""
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
            Parameters.model_validate(parameters)
        except ValidationError as error:
            raise ClickException(_readable(error)) from error
        address = parameters["data_dir"]
        if is_address(address):
            parameters["data_dir"] = str(folder_of(address, Path(parameters["cache_dir"])))
        for folder in ("raw_dir", "data_dir", "cache_dir", "tag_dir"):
            if parameters[folder] is None:
                continue
            if is_address(parameters[folder]):
                raise ClickException(
                    f"{folder} is {parameters[folder]}, but has to be a folder: name one with "
                    f"--params {folder}=FOLDER; a bucket that is mounted is one"
                )
            if parameters[folder].startswith("~"):
                raise ClickException(f"{folder} is {parameters[folder]}: write ~ out")
            parameters[folder] = str(context.project_path / parameters[folder])
        # For temporary files; of a run into a store, the folder for copies.
        parameters["spool_dir"] = parameters["data_dir"]
        parameters["network_settings"] = {
            name: parameters[name] for name in NetworkSettings.model_fields
        }
        context.config_loader["parameters"] = parameters
        if is_address(address):
            store = Store(address.rstrip("/"), Path(parameters["data_dir"]))
            context.config_loader["catalog"] = in_store(context.config_loader["catalog"], store)
        set_parameters(parameters)


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
