"""Parameters of a run, as the hook leaves them for nodes and catalog."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click import ClickException
from kedro.config import OmegaConfigLoader
from pydantic import ValidationError

from fsat_kedro import pipeline_registry
from fsat_kedro.hooks.parameters import ParameterHooks, _readable
from fsat_kedro.parameters import Model, TestTimeCrops, Trim
from fsat_kedro.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Keep the parameters of these tests from others."""
    monkeypatch.setattr(pipeline_registry, "_run_parameters", {})


def loader_after_hook(project_path, env="demo", **parameters):
    loader = OmegaConfigLoader(
        conf_source=str(CONF), env=env, runtime_params=parameters, **CONFIG_LOADER_ARGS
    )
    context = SimpleNamespace(config_loader=loader, project_path=project_path, env=env)
    ParameterHooks().after_context_created(context)
    return loader


def test_folders_are_absolute_in_parameters_and_catalog(tmp_path):
    loader = loader_after_hook(tmp_path)
    parameters = loader["parameters"]
    assert parameters["data_dir"] == parameters["spool_dir"] == str(tmp_path / "data" / "demo")
    assert parameters["cache_dir"] == str(tmp_path / "data" / "cache")
    assert parameters["tag_dir"] is None
    weights = loader["catalog"]["{stage}_weights_{fold}"]
    assert weights["filepath"].startswith(str(tmp_path / "data" / "demo" / "06_models"))
    assert weights["cache_dir"] == str(tmp_path / "data" / "cache")
    assert pipeline_registry._run_parameters == parameters


def test_a_url_stays_one_and_has_a_local_folder_for_temporary_files(tmp_path):
    loader = loader_after_hook(tmp_path, "base", data_dir="s3://bucket/run/", cache_dir="copies")
    parameters = loader["parameters"]
    assert parameters["data_dir"] == "s3://bucket/run"
    assert parameters["spool_dir"] == str(tmp_path / "copies" / "s3" / "bucket" / "run")
    clips = loader["catalog"]["{split}_clips"]
    assert clips["filepath"] == "s3://bucket/run/02_intermediate/{split}_clips.pkl"


@pytest.mark.parametrize(
    ("env", "parameters", "message"),
    [
        ("demo", {"trim": {"topdb": 1}}, "unknown parameter 'trim.topdb'"),
        ("demo", {"seed": -1}, "parameter 'seed' is -1"),
        ("nowhere", {}, "unknown environment 'nowhere': .* has audioset, base, demo, esc50"),
        ("demo", {"raw_dir": "s3://bucket"}, "raw_dir is s3://bucket, but has to be a folder"),
        ("demo", {"cache_dir": "s3://bucket"}, "cache_dir is s3://bucket, but has to be a folder"),
        ("base", {"data_dir": "~/out"}, "data_dir is ~/out: write the full path"),
        ("demo", {"training": {"probe": True}}, "training.probe is true, which needs the weights"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path, env, parameters, message):
    with pytest.raises(ClickException, match=message):
        loader_after_hook(tmp_path, env, **parameters)


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (Trim, {"top_db": 60, "topdb": 1}, "unknown parameter 'topdb'"),
        (Trim, {}, "parameter 'top_db' is not set"),
        (Trim, {"top_db": -1}, "parameter 'top_db' is -1: Input should be greater than 0"),
        (Trim, {"top_db": "loud"}, "parameter 'top_db' is 'loud': "),
        (
            Model,
            {"weights": "nowhere.h5", "width": 1, "momentum": {"backbone": 0.9, "others": 0.9}},
            "'nowhere.h5' is neither none, imagenet, audioset nor a file that exists",
        ),
    ],
)
def test_an_error_has_the_name_and_value_of_a_wrong_parameter(group, values, message):
    with pytest.raises(ValidationError) as error:
        group.model_validate(values)
    readable = _readable(error.value)
    assert message in readable
    assert readable.endswith("All parameters are in conf/base/parameters*.yml")


def test_an_error_lists_all_wrong_parameters():
    with pytest.raises(ValidationError) as error:
        TestTimeCrops.model_validate(
            {"n_lengths": 0, "crops_per_length": 0, "subset": "all", "batch_size": 1}
        )
    readable = _readable(error.value)
    assert "'n_lengths' is 0" in readable
    assert "; parameter 'crops_per_length' is 0" in readable
