"""The check of trained weights, on an ensemble whose parts are text."""

import pickle

import pytest
from click import ClickException
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro_datasets.text import TextDataset

from fsat_kedro.datasets import TaggerDataset
from fsat_kedro.errors import InputError
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.hooks.weights import WeightsHooks
from fsat_kedro.inference.tagger import parts


def use(*inputs):
    return "made"


FIT = node(use, "summary", "projector", name="fit")
TRAIN = node(use, "components", "mel_pca_weights_1", name="train")
PREDICT = node(use, ["mel_pca_weights_1", "components"], "test_1", name="predict")
DESCRIBE = node(use, ["projector", "mel_pca_weights_1"], "tagger", name="describe")


@pytest.fixture
def catalog(tmp_path, tagger_settings):
    """Save a finished ensemble."""
    datasets = {name: TextDataset(filepath=str(tmp_path / file)) for name, file in parts(2).items()}
    for dataset in datasets.values():
        dataset.save("of the first training")
    datasets["tagger"] = TaggerDataset(filepath=str(tmp_path / "tagger.json"))
    datasets["tagger"].save(tagger_settings)
    datasets["params:data_dir"] = MemoryDataset(str(tmp_path))
    datasets["params:model"] = MemoryDataset(tagger_settings.model.model_dump())
    return DataCatalog(datasets)


def start(catalog, *nodes, only_missing_outputs=False):
    hooks = WeightsHooks()
    run_params = {"only_missing_outputs": only_missing_outputs}
    hooks.before_pipeline_run(run_params, Pipeline([*nodes]), catalog)
    return hooks


@pytest.mark.parametrize("part", ["projector", "mel_statistics", "classes"])
def test_old_weights_do_not_predict_beside_another_fitted_part(catalog, part):
    start(catalog, PREDICT)
    catalog.save(part, "of a second training")
    with pytest.raises(ClickException, match=f"not of one training: {part}"):
        start(catalog, PREDICT)


def test_weights_of_a_fold_that_was_trained_again_predict(catalog):
    catalog.save("mel_pca_weights_1", "of the second training of this fold")
    start(catalog, PREDICT)


def test_a_run_may_describe_or_train_in_a_folder_with_another_projector(catalog):
    catalog.save("projector", "of a second training")
    start(catalog, DESCRIBE)
    hooks = start(catalog, TRAIN, PREDICT)
    for each in (TRAIN, PREDICT):
        hooks.before_node_run(each)


def test_kept_weights_do_not_predict_after_the_run_has_fitted_another_projector(catalog):
    hooks = start(catalog, FIT, TRAIN, PREDICT, DESCRIBE, only_missing_outputs=True)
    hooks.before_node_run(PREDICT)
    catalog.save("projector", "fitted by this run")
    for check in (hooks.before_node_run, lambda each: hooks.for_worker(each, set())):
        with pytest.raises(InputError, match="not of one training: projector"):
            check(PREDICT)
        check(DESCRIBE)


@pytest.mark.parametrize("unfinished", ["tagger", "mel_pca_weights_1"])
def test_what_the_run_is_to_make_anew_is_not_checked(catalog, unfinished):
    Marks(catalog.load("params:data_dir")).mark_unfinished({unfinished})
    hooks = start(catalog, TRAIN, PREDICT, DESCRIBE, only_missing_outputs=True)
    catalog.save("projector", "fitted by this run")
    hooks.before_node_run(PREDICT)


def test_hooks_of_a_worker_check_nothing(catalog):
    hooks = start(catalog, PREDICT, only_missing_outputs=True)
    sent = pickle.loads(pickle.dumps(hooks.for_worker(PREDICT, set())))
    catalog.save("projector", "fitted by this run")
    sent.before_node_run(PREDICT)


def test_weights_of_stage_mel_are_checked_where_it_is_the_last(tmp_path, tagger_settings):
    model = tagger_settings.model.model_copy(update={"summary_features": False})
    names = parts(2, "mel").items()
    datasets = {name: TextDataset(filepath=str(tmp_path / file)) for name, file in names}
    for dataset in datasets.values():
        dataset.save("of the first training")
    datasets["tagger"] = TaggerDataset(filepath=str(tmp_path / "tagger.json"))
    datasets["tagger"].save(tagger_settings.model_copy(update={"model": model}))
    datasets["params:data_dir"] = MemoryDataset(str(tmp_path))
    datasets["params:model"] = MemoryDataset(model.model_dump())
    catalog = DataCatalog(datasets)
    predict = node(use, ["mel_weights_1", "mels"], "test_1", name="predict")
    start(catalog, predict)
    catalog.save("classes", "of a second training")
    with pytest.raises(ClickException, match="not of one training: classes"):
        start(catalog, predict)
