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
from fsat_kedro.pipeline_registry import register_pipelines
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


def write_files(folder, *names, **tables):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, content in tables.items():
        (folder / f"{name}.csv").write_text(content)


def splits_of(pipelines):
    names = {name for name in pipelines["__default__"].all_outputs() if name.endswith("_clips")}
    return names & {"train_clips", "test_clips"}


def test_the_layout_is_recognised_and_its_folds_and_splits_are_those_of_the_run(tmp_path):
    esc50 = "filename,fold,category\na.wav,1,x\nb.wav,2,x\nc.wav,4,y\n"
    write_files(tmp_path / "data" / "01_raw", "audio/a.wav", esc50=esc50)
    parameters = loader_after_hook(tmp_path, "audioset")["parameters"]
    assert parameters["dataset"] == "esc50"
    assert parameters["folds"] == {"source": "given", "n_folds": 3}
    pipelines = register_pipelines()
    assert splits_of(pipelines) == {"train_clips"}
    assert "mel_weights_3" in pipelines["training"].all_outputs()
    assert "mel_weights_4" not in pipelines["training"].all_outputs()
    folds = {"source": "stratified", "n_folds": 2}
    parameters = loader_after_hook(tmp_path, "audioset", folds=folds)["parameters"]
    assert parameters["folds"] == folds


@pytest.mark.parametrize("dataset", ["auto", "folder_per_class"])
def test_the_splits_are_those_of_the_folders(tmp_path, dataset):
    raw = tmp_path / "data" / "01_raw"
    write_files(raw, "train/dog/1.wav", "train/cat/1.wav", "test/dog/1.wav")
    parameters = loader_after_hook(tmp_path, "audioset", dataset=dataset)["parameters"]
    assert parameters["dataset"] == "folder_per_class"
    assert parameters["folds"] == {"source": "auto", "n_folds": 5}
    assert splits_of(register_pipelines()) == {"train_clips", "test_clips"}


@pytest.mark.parametrize("raw", [None, "empty", "ambiguous"])
def test_without_usable_raw_data_the_splits_and_folds_are_those_of_the_outputs(tmp_path, raw):
    if raw is not None:
        (tmp_path / "data" / "01_raw").mkdir(parents=True)
    if raw == "ambiguous":
        table = "fname,label\n1.wav,x\n"
        write_files(tmp_path / "data" / "01_raw", "dog/1.wav", "cat/1.wav", labels=table)
    parameters = loader_after_hook(tmp_path, "audioset")["parameters"]
    assert (parameters["dataset"], parameters["splits"]) == ("auto", ["train", "test"])
    assert parameters["folds"]["n_folds"] == 5
    counts = tmp_path / "data" / "audioset" / "08_reporting" / "clip_counts.json"
    counts.parent.mkdir(parents=True)
    counts.write_text('{"train": {"listed": 9, "own_folds": 3}}')
    parameters = loader_after_hook(tmp_path, "audioset")["parameters"]
    assert (parameters["dataset"], parameters["splits"]) == ("auto", ["train"])
    assert parameters["folds"] == {"source": "given", "n_folds": 3}
    counts.write_text('{"train": {"listed"')
    assert loader_after_hook(tmp_path, "audioset")["parameters"]["splits"] == ["train", "test"]


def test_the_demo_has_both_splits_whatever_an_interrupted_one_left(tmp_path):
    raw = tmp_path / "data" / "demo" / "01_raw"
    write_files(raw, "audio_train/a.wav", train="fname,label\na.wav,x\n")
    assert loader_after_hook(tmp_path)["parameters"]["dataset"] == "fsdkaggle2018"
    assert splits_of(register_pipelines()) == {"train_clips", "test_clips"}


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
