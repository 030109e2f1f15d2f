"""Locks and marks of a run of two tiny nodes, in a folder as in a store."""

import pickle

import pytest
from click import ClickException
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.text import TextDataset

from fsat_kedro import files
from fsat_kedro.datasets import TaggerDataset
from fsat_kedro.hooks.locks import lock
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.hooks.outputs import OutputHooks
from fsat_kedro.inference.tagger import parts


@pytest.fixture(params=["local", "s3"])
def data_dir(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("url")
    return str(tmp_path / "data")


@pytest.fixture
def spool_dir(data_dir, tmp_path):
    return files.local_path(data_dir, tmp_path / "cache")


@pytest.fixture
def catalog(data_dir, spool_dir):
    datasets = {name: JSONDataset(filepath=f"{data_dir}/{name}.json") for name in "abc"}
    parameters = {"params:data_dir": data_dir, "params:spool_dir": str(spool_dir)}
    datasets |= {name: MemoryDataset(value) for name, value in parameters.items()}
    return DataCatalog(datasets)


def add_one(number):
    return number + 1


def fail(number):
    raise ZeroDivisionError


def pipeline(second=add_one):
    """Make b from a, then c from b."""
    return Pipeline([node(add_one, "a", "b", name="first"), node(second, "b", "c", name="second")])


def run(pipeline, catalog, *, only_missing_outputs=False):
    """Run a pipeline with the hooks around it, as a session does."""
    hooks = OutputHooks()
    hooks.before_pipeline_run({"only_missing_outputs": only_missing_outputs}, pipeline, catalog)
    manager = _create_hook_manager()
    manager.register(hooks)
    try:
        SequentialRunner().run(
            pipeline, catalog, manager, only_missing_outputs=only_missing_outputs
        )
    except Exception:
        hooks.on_pipeline_error()
        raise
    hooks.after_pipeline_run()


def test_a_finished_run_leaves_no_mark_and_no_lock(catalog, data_dir, spool_dir):
    catalog.save("a", 1)
    run(pipeline(), catalog)
    assert catalog.load("c") == 3
    assert Marks(data_dir).unfinished() == set()
    lock({"b", "c"}, set(), spool_dir).close()


def test_a_run_that_breaks_off_leaves_marks_and_no_lock(catalog, data_dir, spool_dir):
    catalog.save("a", 1)
    with pytest.raises(ZeroDivisionError):
        run(pipeline(fail), catalog)
    assert Marks(data_dir).unfinished() == {"c"}
    lock({"b", "c"}, set(), spool_dir).close()


def test_all_outputs_are_marked_before_the_first_node(catalog, data_dir):
    catalog.save("a", 1)
    hooks = OutputHooks()
    nodes = pipeline()
    hooks.before_pipeline_run({"only_missing_outputs": False}, nodes, catalog)
    assert Marks(data_dir).unfinished() == set()
    hooks.before_node_run(nodes.nodes[0])
    assert Marks(data_dir).unfinished() == {"b", "c"}
    hooks.after_dataset_saved("b")
    assert Marks(data_dir).unfinished() == {"c"}
    hooks.after_pipeline_run()


def test_only_missing_outputs_makes_marked_outputs_anew(catalog, data_dir):
    catalog.save("a", 1)
    catalog.save("b", 20)
    catalog.save("c", "half-written")
    Marks(data_dir).mark_unfinished({"c"})
    run(pipeline(), catalog, only_missing_outputs=True)
    assert catalog.load("c") == 21
    assert Marks(data_dir).unfinished() == set()


def test_only_missing_outputs_marks_what_it_makes(catalog, data_dir):
    catalog.save("a", 1)
    catalog.save("b", 20)
    with pytest.raises(ZeroDivisionError):
        run(pipeline(fail), catalog, only_missing_outputs=True)
    assert Marks(data_dir).unfinished() == {"c"}


@pytest.mark.parametrize("only_missing_outputs", [True, False])
def test_an_unfinished_input_is_refused(catalog, data_dir, spool_dir, only_missing_outputs):
    catalog.save("a", 1)
    Marks(data_dir).mark_unfinished({"a", "b"})
    with pytest.raises(ClickException, match=r"not finished in .*: a\. .*--only-missing-outputs"):
        run(pipeline(), catalog, only_missing_outputs=only_missing_outputs)
    assert not catalog.exists("b")


def test_a_missing_input_is_left_to_its_dataset(catalog, data_dir):
    Marks(data_dir).mark_unfinished({"a"})
    with pytest.raises((DatasetError, FileNotFoundError)):
        run(pipeline(), catalog)


def test_a_second_run_is_refused(catalog, data_dir, spool_dir):
    spool_dir.mkdir(parents=True)
    with (
        lock({"c"}, set(), spool_dir),
        pytest.raises(ClickException, match="another run reads or writes c in"),
    ):
        run(pipeline(), catalog)
    assert Marks(data_dir).unfinished() == set()


def test_outdated_outputs_are_named(catalog, monkeypatch, caplog):
    moments = {"a": 2.0, "b": 1.0, "c": 3.0}
    monkeypatch.setattr("fsat_kedro.hooks.outputs.modified_at", lambda path: moments[path[-6]])
    for name in "abc":
        catalog.save(name, 1)
    run(pipeline(), catalog, only_missing_outputs=True)
    assert "Older than what they are made from, and kept as they are: b." in caplog.text


def test_outdated_inputs_are_named(catalog, monkeypatch, caplog):
    """A run of the last pipeline warns if an input is made from something newer."""
    moments = {"a": 2.0, "b": 1.0, "c": 3.0}
    monkeypatch.setattr("fsat_kedro.hooks.outputs.modified_at", lambda path: moments[path[-6]])
    monkeypatch.setattr("fsat_kedro.hooks.outputs.pipelines", {"__default__": pipeline()})
    for name in "abc":
        catalog.save(name, 1)
    catalog["d"] = MemoryDataset()
    run(Pipeline([node(add_one, "c", "d")]), catalog)
    assert "Older than what they are made from, and kept as they are: b." in caplog.text


@pytest.mark.parametrize("part", ["tagger", "classes", "mel_pca_weights_2"])
def test_a_run_that_loads_the_ensemble_reads_its_parts_too(
    catalog, data_dir, spool_dir, tmp_path, tagger_settings, part
):
    for name, file in parts(2).items():
        with files.open_atomic(f"{data_dir}/{file}") as opened:
            opened.write(b"content")
        catalog[name] = TextDataset(filepath=f"{data_dir}/{file}")
    catalog["tagger"] = TaggerDataset(
        filepath=f"{data_dir}/tagger.json", cache_dir=str(tmp_path / "cache")
    )
    catalog.save("tagger", tagger_settings)
    tag = Pipeline([node(add_one, "tagger", "b")])
    spool_dir.mkdir(parents=True, exist_ok=True)
    with (
        lock({part}, set(), spool_dir),
        pytest.raises(ClickException, match=f"another run reads or writes {part} in"),
    ):
        run(tag, catalog)
    Marks(data_dir).mark_unfinished({part})
    with pytest.raises(ClickException, match=f"not finished in .*: {part}"):
        run(tag, catalog)


def test_hooks_for_a_worker_mark_and_clear_in_another_process(catalog, data_dir):
    catalog.save("a", 1)
    nodes = pipeline()
    hooks = OutputHooks()
    hooks.before_pipeline_run({"only_missing_outputs": False}, nodes, catalog)
    sent = pickle.loads(pickle.dumps(hooks.for_worker(nodes.nodes[0], set())))
    assert Marks(data_dir).unfinished() == {"b", "c"}
    sent.after_dataset_saved("b")
    assert Marks(data_dir).unfinished() == {"c"}
    hooks.after_pipeline_run()


@pytest.mark.parametrize(
    ("data_dir", "message"),
    [
        ("s3://no-such-bucket/run", "does not exist"),
        ("nowhere://bucket", "Protocol not known"),
        ("/proc/nowhere", "data_dir /proc/nowhere cannot be written to"),
    ],
)
def test_an_unusable_data_dir_is_refused_before_anything_is_written(
    url, tmp_path, data_dir, message
):
    parameters = {"params:data_dir": data_dir, "params:spool_dir": str(tmp_path)}
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in parameters.items()})
    with pytest.raises(ClickException, match=message):
        run(pipeline(), catalog)
