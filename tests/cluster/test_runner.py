"""Small pipelines on a scheduler and two workers of this machine."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click import ClickException
from dask_cluster import ROOT, Cluster, python_path
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro_datasets.json import JSONDataset

from fsat_kedro import parallel
from fsat_kedro.cluster import DaskRunner, worker
from fsat_kedro.errors import InputError
from fsat_kedro.hooks.errors import ReadableErrorHooks
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.hooks.outputs import OutputHooks
from fsat_kedro.parallel import map_clips

# What the nodes do, on workers that import this module.


def name_of_one_of_two_workers(folder):
    """Return the name of this worker, once two run at the same time."""
    from distributed import get_worker

    name = get_worker().name
    Path(folder, f"here-{name}").touch()
    deadline = time.monotonic() + 30
    while len(list(Path(folder).glob("here-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return name


def name_of_worker(folder):
    from distributed import get_worker

    return get_worker().name


def identity(value):
    return value


def join(one, other):
    return [one, other]


def run_long_once(folder):
    """Write the id of this process to a file, and take long the first time."""
    path = Path(folder, "process")
    first = not path.exists()
    path.write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while first and time.monotonic() < deadline:
        time.sleep(0.05)
        Path(folder, "alive").write_text(str(time.time()))
    return os.getpid()


def fail(folder):
    raise InputError("no clips there: mend the table")


def square(number):
    from distributed import get_worker

    time.sleep(0.02)
    return number**2, get_worker().name


def map_numbers(folder, n_jobs):
    read = []

    def numbers():
        for number in range(300):
            read.append(number)
            yield number

    parallel._LOG_SECONDS = 0.05
    results = map_clips(square, numbers(), n_jobs=n_jobs, total=300, description="numbers")
    first = next(results)
    ahead = len(read)
    rest = list(results)
    return {"ahead": ahead, "squares": [n for n, _ in (first, *rest)], "by": [n for _, n in rest]}


class FullDisk(JSONDataset):
    def save(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


# The tests.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.add_worker("one")
    cluster.add_worker("two", "--resources", "GPU=1")
    wait_for_workers(cluster, 2)
    yield cluster
    cluster.close()


@pytest.fixture
def own_cluster(tmp_path_factory):
    """A cluster for a test that breaks it."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def wait_for_workers(cluster, n_workers):
    from distributed import Client

    with Client(cluster.address) as client:
        client.wait_for_workers(n_workers, timeout=180)


def catalog_of(data_dir, *names, **datasets):
    made = {name: JSONDataset(filepath=str(data_dir / f"{name}.json")) for name in names}
    given = {"params:data_dir": MemoryDataset(str(data_dir))}
    return DataCatalog(datasets={**given, **made, **datasets})


def hooks(data_dir):
    manager = _create_hook_manager()
    outputs = OutputHooks()
    outputs._marks = Marks(str(data_dir))
    manager.register(outputs)
    manager.register(ReadableErrorHooks())
    return manager


def run(cluster, pipeline, catalog, manager=None):
    address = getattr(cluster, "address", cluster)
    return DaskRunner(address).run(pipeline, catalog, manager)


def node_of_folder(function, output, **settings):
    return node(function, "params:data_dir", output, name=function.__name__, **settings)


def test_independent_nodes_run_on_both_workers_at_once(cluster, data_dir):
    pipeline = Pipeline(
        [
            node(join, ["left", "right"], "both"),
            node(name_of_one_of_two_workers, "params:data_dir", "left", name="left"),
            node(name_of_one_of_two_workers, "params:data_dir", "right", name="right"),
        ]
    )
    catalog = catalog_of(data_dir, "left", "right", "both")
    run(cluster, pipeline, catalog)
    assert sorted(catalog.load("both")) == ["one", "two"]


def test_a_node_tagged_gpu_runs_on_a_worker_with_a_gpu(cluster, data_dir):
    names = [f"name_{number}" for number in range(4)]
    pipeline = Pipeline(
        [node(name_of_worker, "params:data_dir", name, name=name, tags="gpu") for name in names]
    )
    catalog = catalog_of(data_dir, *names)
    run(cluster, pipeline, catalog)
    assert {catalog.load(name) for name in names} == {"two"}


def test_workers_clear_the_unfinished_marks_of_their_outputs(cluster, data_dir):
    Marks(str(data_dir)).mark_unfinished({"name", "other"})
    pipeline = Pipeline([node_of_folder(name_of_worker, "name")])
    run(cluster, pipeline, catalog_of(data_dir, "name"), hooks(data_dir))
    assert Marks(str(data_dir)).unfinished() == {"other"}


def test_an_output_in_memory_only_is_refused_by_name(data_dir):
    pipeline = Pipeline(
        [node_of_folder(name_of_one_of_two_workers, "left"), node(identity, "left", "right")]
    )
    with pytest.raises(InputError, match="left, right would be kept in the memory"):
        DaskRunner("tcp://127.0.0.1:9").run(pipeline, catalog_of(data_dir))


def test_an_input_error_of_a_node_is_one_message_and_the_run_can_be_resumed(
    cluster, data_dir, caplog
):
    pipeline = Pipeline(
        [node_of_folder(name_of_worker, "name"), node(fail, "name", "none", name="bad")]
    )
    catalog = catalog_of(data_dir, "name", "none")
    with pytest.raises(ClickException, match=r"^bad: no clips there: mend the table$"):
        run(cluster, pipeline, catalog, hooks(data_dir))
    assert '--from-nodes "bad"' in caplog.text
    assert not (data_dir / "none.json").exists()


def test_the_message_on_a_full_disk_names_the_machine(cluster, data_dir):
    pipeline = Pipeline([node_of_folder(name_of_worker, "name")])
    full = FullDisk(filepath=str(data_dir / "name.json"))
    with pytest.raises(ClickException, match=r"^on .*No space left.* GB free.*missing-outputs"):
        run(cluster, pipeline, catalog_of(data_dir, name=full), hooks(data_dir))


def test_all_workers_map_clips_in_order_and_a_few_at_a_time(cluster, data_dir, caplog):
    caplog.set_level("INFO", "fsat_kedro")
    map_with = {"params:data_dir": "params:data_dir", "n_jobs": "params:n_jobs"}
    pipeline = Pipeline([node(map_numbers, list(map_with.values()), "mapped", name="map")])
    catalog = catalog_of(data_dir, "mapped", **{"params:n_jobs": MemoryDataset(-1)})
    run(cluster, pipeline, catalog)
    mapped = catalog.load("mapped")
    assert mapped["squares"] == [number**2 for number in range(300)]
    assert set(mapped["by"]) == {"one", "two"}
    assert mapped["ahead"] < 50
    assert "numbers:" in caplog.text


def test_a_node_whose_worker_is_killed_runs_again(own_cluster, data_dir):
    own_cluster.add_worker("one")
    own_cluster.add_worker("two")
    wait_for_workers(own_cluster, 2)
    killed = kill_when(data_dir / "process")
    pipeline = Pipeline([node_of_folder(run_long_once, "process_id")])
    catalog = catalog_of(data_dir, "process_id")
    run(own_cluster, pipeline, catalog, hooks(data_dir))
    assert killed
    assert catalog.load("process_id") not in killed


def kill_when(path):
    """Kill the process whose id is in a file, as soon as the file exists; return its id."""
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        killed.append(int(path.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    return killed


CLOSE_SOON = """
import functools

def dask_setup(worker):
    worker.close = functools.partial(worker.close, timeout=1)
"""


def test_a_dead_scheduler_ends_the_run_with_a_message_and_its_nodes(own_cluster, data_dir):
    # A worker that has lost its scheduler waits for its node, without this for 30 s.
    own_cluster.add_worker("one", "--preload", CLOSE_SOON)
    wait_for_workers(own_cluster, 1)
    process = data_dir / "process"

    def kill():
        while not process.exists():
            time.sleep(0.05)
        own_cluster.scheduler.kill()

    threading.Thread(target=kill, daemon=True).start()
    pipeline = Pipeline([node_of_folder(run_long_once, "process_id")])
    catalog = catalog_of(data_dir, "process_id")
    with pytest.raises(InputError, match=r"the scheduler at tcp://.* is gone.*missing-outputs"):
        run(own_cluster, pipeline, catalog, hooks(data_dir))
    assert_ends(data_dir / "alive")
    assert not (data_dir / "process_id.json").exists()


RUN_ALONE = """
import sys
from pathlib import Path
from test_runner import *
data_dir = Path(sys.argv[2])
pipeline = Pipeline([node_of_folder(run_long_once, "process_id")])
run(sys.argv[1], pipeline, catalog_of(data_dir, "process_id"), hooks(data_dir))
"""


def test_a_node_ends_with_its_killed_run_and_the_next_run_gets_a_new_process(cluster, data_dir):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_ALONE, cluster.address, str(data_dir)],
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    while not (data_dir / "alive").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    ended = int((data_dir / "process").read_text())
    assert_ends(data_dir / "alive")
    catalog = catalog_of(data_dir, "process_id")
    run(cluster, Pipeline([node_of_folder(run_long_once, "process_id")]), catalog, hooks(data_dir))
    assert catalog.load("process_id") != ended


def assert_ends(alive):
    """Check that a node stops writing to a file."""
    deadline = time.monotonic() + 40
    written = None
    while alive.read_text() != written and time.monotonic() < deadline:
        written = alive.read_text()
        time.sleep(1)
    assert alive.read_text() == written


@pytest.fixture
def other_source(tmp_path):
    """The package with an additional line."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    with (tmp_path / "src" / "fsat_kedro" / "errors.py").open("a") as file:
        file.write("# Changed.\n")
    return tmp_path / "src"


def test_workers_that_differ_are_refused_by_name_before_anything_is_written(
    own_cluster, other_source, data_dir
):
    own_cluster.add_worker("other", PYTHONPATH=python_path(other_source))
    own_cluster.add_worker("jax", KERAS_BACKEND="jax")
    own_cluster.add_worker("threads", threads=2)
    own_cluster.add_worker("bare", "--no-nanny")
    wait_for_workers(own_cluster, 4)
    catalog = catalog_of(data_dir, "name")
    with pytest.raises(InputError) as error:
        run(
            own_cluster,
            Pipeline([node_of_folder(name_of_worker, "name")]),
            catalog,
            hooks(data_dir),
        )
    assert "has the source of fsat_kedro" in str(error.value)
    assert "has KERAS_BACKEND jax instead of tensorflow" in str(error.value)
    assert "has 2 threads: start it with --nthreads 1" in str(error.value)
    assert "has no nanny" in str(error.value)
    assert list(data_dir.glob("*.json")) == []
    assert Marks(str(data_dir)).unfinished() == set()


@pytest.fixture
def another_numpy(monkeypatch):
    """Another version of NumPy in the run's own process than in the cluster's processes."""
    environment = {**worker.environment(), "numpy": "0.1"}
    monkeypatch.setattr(worker, "environment", lambda: environment)


def test_a_scheduler_that_differs_is_refused(cluster, data_dir, another_numpy):
    pipeline = Pipeline([node_of_folder(name_of_worker, "name")])
    with pytest.raises(InputError, match=r"the scheduler has numpy .* instead of 0\.1"):
        run(cluster, pipeline, catalog_of(data_dir, "name"), hooks(data_dir))


def test_a_worker_that_joins_later_and_differs_is_refused(
    cluster, data_dir, another_numpy, monkeypatch
):
    monkeypatch.setattr("fsat_kedro.cluster.runner._ClusterRun._prepare_cluster", lambda _: set())
    pipeline = Pipeline([node_of_folder(name_of_worker, "name")])
    with pytest.raises(InputError, match=r"worker tcp://.* has numpy .* instead of 0\.1"):
        run(cluster, pipeline, catalog_of(data_dir, "name"), hooks(data_dir))


def test_a_missing_scheduler_is_reported():
    pipeline = Pipeline([node(identity, "a", "b")])
    catalog = DataCatalog(
        datasets={"a": MemoryDataset(1), "b": JSONDataset(filepath="nowhere.json")}
    )
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        DaskRunner("tcp://127.0.0.1:9").run(pipeline, catalog)


def test_without_an_address_workers_start_on_this_machine(data_dir, monkeypatch, tmp_path):
    # Pretend that this machine has one GPU.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: NVIDIA'\n")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", python_path())
    names = ["a", "b"]
    pipeline = Pipeline(
        [node(visible_gpus, "params:data_dir", name, name=name, tags="gpu") for name in names]
    )
    catalog = catalog_of(data_dir, *names)
    DaskRunner(n_workers=2).run(pipeline, catalog)
    assert [json.loads((data_dir / f"{name}.json").read_text()) for name in names] == ["0", "0"]


def visible_gpus(folder):
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_a_number_of_workers_is_refused_for_a_running_cluster():
    with pytest.raises(ClickException, match="there is one at tcp://x:1"):
        DaskRunner("tcp://x:1", n_workers=2)
