"""Which runs fetch the initial weights, with a recorded download in place of a real one."""

import pytest
from click import ClickException
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro_datasets.json import JSONDataset

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.initial_weights import InitialWeightsHooks
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.hooks.outputs import OutputHooks
from fsat_kedro.modelling import encoders
from fsat_kedro.settings import HOOKS

MODEL = {
    "weights": "imagenet",
    "width": 1.0,
    "momentum": {"backbone": 0.9, "others": 0.9},
    "precision": "float32",
    "encoder": "mobilenet_v2",
    "frozen_stages": 0,
    "freeze_normalisation": False,
    "summary_features": True,
    "head": "mlp",
}


def make(data):
    return data


FEATURES = node(make, "audio", "mels", name="features.compute_log_mels")
TRAINING = node(make, "mels", "weights", name="training.fold_1.train_mel")
EMBEDDING = node(make, "mels", "embeddings", name="training.embed_clips")
STAGE_2 = node(make, "weights", "pca_weights", name="training.fold_1.train_mel_pca")


@pytest.fixture
def catalog(tmp_path):
    names = ("audio", "mels", "embeddings", "weights", "pca_weights")
    datasets = {name: JSONDataset(filepath=str(tmp_path / f"{name}.json")) for name in names}
    parameters = {"model": MODEL, "data_dir": str(tmp_path), "spool_dir": str(tmp_path)}
    parameters["cache_dir"] = str(tmp_path)
    datasets |= {f"params:{name}": MemoryDataset(value) for name, value in parameters.items()}
    catalog = DataCatalog(datasets)
    catalog.save("audio", "sound")
    return catalog


@pytest.fixture
def fetched(monkeypatch):
    """The weights that were fetched."""
    weights = []
    monkeypatch.setattr(encoders, "fetch_weights", lambda model, _: weights.append(model.weights))
    return weights


@pytest.fixture
def start(catalog):
    """Call the hooks before a run of some nodes, in the order of the project's settings."""
    manager = _create_hook_manager()
    for hooks in HOOKS:
        if isinstance(hooks, InitialWeightsHooks | OutputHooks):
            manager.register(type(hooks)())

    def start(*nodes, only_missing_outputs=False):
        manager.hook.before_pipeline_run(
            run_params={"only_missing_outputs": only_missing_outputs},
            pipeline=Pipeline(nodes),
            catalog=catalog,
        )

    return start


@pytest.mark.parametrize("first", [TRAINING, EMBEDDING], ids=["train_mel", "embed_clips"])
def test_a_run_that_starts_from_them_fetches_them(first, start, fetched):
    start(FEATURES, first)
    assert fetched == ["imagenet"]


def test_other_runs_fetch_nothing(start, catalog, fetched):
    start(FEATURES, STAGE_2)
    catalog["params:model"].save({**MODEL, "weights": None})
    start(FEATURES, TRAINING, STAGE_2)
    assert fetched == []


def test_a_finished_stage_needs_none_unless_it_is_trained_again(start, catalog, fetched, tmp_path):
    catalog.save("weights", "trained")
    start(FEATURES, TRAINING, STAGE_2, only_missing_outputs=True)
    assert fetched == []
    # Left by an earlier run, and not yet made anew by a later one, which was killed.
    Marks(str(tmp_path)).mark_unfinished({"weights"})
    start(FEATURES, TRAINING, STAGE_2, only_missing_outputs=True)
    assert fetched == ["imagenet"]


def test_weights_that_are_not_at_hand_stop_the_run_as_one_message(start, monkeypatch):
    def fail(model, cache_dir):
        raise InputError("no network")

    monkeypatch.setattr(encoders, "fetch_weights", fail)
    # A notebook can start the run again: the first one has left no lock.
    for _ in range(2):
        with pytest.raises(ClickException, match="no network"):
            start(FEATURES, TRAINING)
