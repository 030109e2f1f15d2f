from pathlib import Path

import pytest

from fsat_kedro import pipeline_registry
from fsat_kedro.pipeline_registry import configured_parameters, register_pipelines


@pytest.mark.parametrize("env", ["base", "esc50"])
def test_predictions_are_all_that_follows_the_training_and_train_nothing(env, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    parameters = configured_parameters(env)
    monkeypatch.setattr(pipeline_registry, "_run_parameters", parameters)
    pipelines = register_pipelines()
    folds = range(1, parameters["folds"]["n_folds"] + 1)
    weights = {f"mel_pca_weights_{fold}" for fold in folds}
    predictions = pipelines["predictions"]
    assert weights <= predictions.inputs()
    dependent = {node.name for node in pipelines["__default__"].from_inputs(*weights).nodes}
    names = {node.name for node in predictions.nodes}
    assert dependent <= names
    assert names - dependent == {
        node.name for node in pipelines["reporting"].nodes if node.name not in dependent
    }
    assert "training.describe_tagger" in names
