from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader

from fsat_kedro import pipeline_registry
from fsat_kedro.pipeline_registry import register_pipelines
from fsat_kedro.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture
def registered(monkeypatch):
    """Return a function that registers the pipelines of an environment."""

    def register(env, **changes):
        loader = OmegaConfigLoader(conf_source=str(CONF), env=env, **CONFIG_LOADER_ARGS)
        parameters = {**loader["parameters"], **changes}
        monkeypatch.setattr(pipeline_registry, "_run_parameters", parameters)
        return parameters, register_pipelines()

    return register


@pytest.mark.parametrize(
    ("env", "stage"), [("base", "mel_pca"), ("esc50", "mel_pca"), ("audioset", "mel")]
)
@pytest.mark.parametrize("changes", [{}, {"splits": ["train"]}])
def test_predictions_are_all_that_follows_the_training_and_train_nothing(
    env, stage, changes, registered
):
    parameters, pipelines = registered(env, **changes)
    assert ("test_clips" in pipelines["preprocessing"].all_outputs()) == (changes == {})
    folds = range(1, parameters["folds"]["n_folds"] + 1)
    weights = {f"{stage}_weights_{fold}" for fold in folds}
    predictions = pipelines["predictions"]
    assert weights <= predictions.inputs()
    dependent = {node.name for node in pipelines["__default__"].from_inputs(*weights).nodes}
    names = {node.name for node in predictions.nodes}
    assert dependent <= names
    assert names - dependent == {
        node.name for node in pipelines["reporting"].nodes if node.name not in dependent
    }
    assert "training.describe_tagger" in names


@pytest.mark.parametrize(("env", "probes"), [("base", False), ("audioset", True)])
def test_clips_are_embedded_once_for_the_probes_of_all_folds(env, probes, registered):
    parameters, pipelines = registered(env)
    assert parameters["training"]["probe"] == probes
    nodes = pipelines["training"].nodes
    embed = [node.name for node in nodes if "train_embeddings" in node.outputs]
    users = [node.name for node in nodes if "train_embeddings" in node.inputs]
    folds = range(1, parameters["folds"]["n_folds"] + 1)
    assert embed == ["training.embed_clips"] * probes
    expected = [
        f"training.fold_{fold}.{name}" for fold in folds for name in ("train_mel", "verify_labels")
    ]
    baselines = ["training.score_baselines"]
    assert sorted(users) == ([*expected, *baselines] if probes else [])


@pytest.mark.parametrize("splits", [["train"], ["train", "test"]])
def test_without_summary_features_nothing_computes_fits_or_reads_them(splits, registered):
    marks = ("summary", "components", "projector", "pca")
    full = registered("base", splits=splits)[1]["__default__"]
    without = registered("audioset", splits=splits)[1]["__default__"]

    def marked(names):
        return {name for name in names if any(mark in name for mark in marks)}

    for pipeline, has_any in ((full, True), (without, False)):
        assert bool(marked(node.name for node in pipeline.nodes)) == has_any
        assert bool(marked(pipeline.datasets())) == has_any
    assert without.inputs() - {"callbacks"} < full.inputs() - {"callbacks"}
    # Nothing is left that no node makes.
    names = {name for name in without.inputs() if not name.startswith("params:")}
    checkpoints = {f"mel_checkpoint_{fold}" for fold in range(1, 6)}
    assert names - checkpoints <= {"raw_folder", "callbacks"}
    assert {f"mel_weights_{fold}" for fold in range(1, 6)} <= without.all_outputs()
