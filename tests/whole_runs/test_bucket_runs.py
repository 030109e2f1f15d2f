"""Whole runs that machines without a shared folder have parts in, by way of an S3 bucket."""

import re
import shutil
import time

import fsspec
import pytest
from dask_cluster import Cluster
from kill_and_resume import differences, make_project, start
from s3_server import BUCKET, s3_server

from fsat_kedro.datasets.stored_dataset import tagger_at
from fsat_kedro.inference.tagger import Tagger
from fsat_kedro.store import Store
from whole_runs import SHORT, kedro


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout without data."""
    return make_project(tmp_path_factory.mktemp("project") / "checkout")


@pytest.fixture(scope="module")
def demo(finished_demo):
    """What a short run of everything on the demo writes, if nothing happens to it."""
    return finished_demo.outputs


class Bucket:
    """What is in an S3 bucket, below a prefix that runs write to.

    Every process keeps its copies in the folder that it was started in, so that none sees those
    of another, as if each were on a machine of its own.
    """

    address = f"s3://{BUCKET}/demo"

    def __init__(self, folder):
        self.folder = folder
        self.files = fsspec.filesystem("s3", use_listings_cache=False)
        self.parameters = {
            **SHORT,
            "data_dir": self.address,
            "raw_dir": folder / "raw",
            "cache_dir": "/proc/self/cwd/cache",
        }

    def changed(self):
        """When each object was written, by its path below the prefix."""
        start = self.address.removeprefix("s3://")
        objects = self.files.find(start, detail=True)
        return {key[len(start) + 1 :]: info["LastModified"] for key, info in objects.items()}

    def difference_from(self, outputs):
        """See `differences`; but for the raw clips, which are in no bucket."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        self.files.get(self.address, str(copy), recursive=True)
        return [words for words in differences(outputs, copy) if not words.startswith("01_raw")]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with s3_server() as settings, pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", settings)
        for name, value in settings.items():
            patch.setenv(f"FSSPEC_S3_{name.upper()}", value)
        yield Bucket(tmp_path_factory.mktemp("bucket"))


@pytest.fixture(scope="module")
def clustered(bucket, project, demo):
    """A run up to the end of the first stages on workers that share no folder.

    One of them is killed while it trains.
    """
    folder = bucket.folder
    machine = make_project(folder / "clustered")
    cluster = Cluster(folder, source=machine / "src")
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
            # Its nanny would start another one in its place, in time for the second stage.
            cluster.add_worker(name, "--no-nanny", cwd=folder / name)
        parameters = ",".join(f"{name}={value}" for name, value in bucket.parameters.items())
        runner = ["--runner", "fsat_kedro.cluster.DaskRunner"]
        address = ["--runner-params", f"address={cluster.address}"]
        last = [f"training.{fold}.train_mel" for fold in ("fold_1", "fold_2")]
        last.append("features.project.project_train_summary")
        arguments = [*runner, *address, "--to-nodes", ",".join(last), "--params", parameters]
        process = start(machine, *arguments)
        log = machine / "run.log"
        kept = f"{bucket.address}/06_models/fold_1/mel.checkpoint.npz"
        while process.poll() is None and not bucket.files.exists(kept):
            time.sleep(0.05)
        # Of both workers, the one that has fold 1.
        (trains,) = folder.glob("*/cache/s3/*/*/.locks/mel_weights_1.node")
        cluster.workers[trains.relative_to(folder).parts[0]].kill()
        assert process.wait() == 0, log.read_text()
    finally:
        cluster.close()
    return machine


def test_a_cluster_makes_the_same_though_a_worker_is_killed_while_it_trains(
    clustered, bucket, demo
):
    from mlflow import MlflowClient

    log = (clustered / "run.log").read_text()
    assert "fold_1 mel: resumes after epoch 1" in log
    made = bucket.changed()
    assert sum(name.endswith(".weights.h5") for name in made) == 2
    assert not any(name.endswith(".checkpoint.npz") for name in made)
    assert not any(name.startswith(".unfinished") for name in made)
    assert [words for words in bucket.difference_from(demo) if "differs" in words] == []
    client = MlflowClient(f"sqlite:///{clustered / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("fsat_kedro").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.info.run_name: run.info.status for run in runs if run is not parent} == {
        "fold_1": "FINISHED",
        "fold_2": "FINISHED",
    }
    for run in runs:
        if run is not parent:
            logged = client.get_metric_history(run.info.run_id, "mel/val_loss")
            assert [metric.step for metric in logged] == [1, 2]
    assert parent.data.metrics["clips/train.listed"] == SHORT["demo.n_train"]


@pytest.fixture(scope="module")
def finished(clustered, bucket, project, demo):
    """What is in the bucket once another machine, without a cluster, has gone on to the end.

    The second stage of fold 2 was made by a third.
    """
    for name in (
        "06_models/fold_2/mel_pca.weights.h5",
        "06_models/fold_2/mel_pca_history.csv",
        "07_model_output/fold_2/oof.npy",
        "07_model_output/fold_2/test.npy",
    ):
        bucket.files.put_file(str(demo / name), f"{bucket.address}/{name}")
    missing = ("run", "--env", "demo", "--only-missing-outputs")
    run = kedro(project, *missing, **bucket.parameters)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"report: {bucket.address}/08_reporting/report.html" in run.stdout
    assert re.findall(r"fold_\d\.train_\w+", run.stdout) == ["fold_1.train_mel_pca"]
    return bucket.changed()


def test_what_a_cluster_began_in_a_bucket_another_machine_finishes(finished, bucket, demo):
    assert bucket.difference_from(demo) == []


def test_a_machine_with_no_copy_makes_what_is_missing_in_the_bucket_and_nothing_else(
    finished, bucket, project, demo
):
    shutil.rmtree(project / "cache")
    lost = "07_model_output/test_scores.json"
    bucket.files.rm(f"{bucket.address}/{lost}")
    missing = ("run", "--env", "demo", "--only-missing-outputs")
    run = kedro(project, *missing, **bucket.parameters)
    assert run.returncode == 0, run.stdout + run.stderr
    changed = bucket.changed()
    assert {name for name, moment in changed.items() if finished[name] != moment} == {lost}
    assert bucket.difference_from(demo) == []
    copied = {path.name for path in (project / "cache").rglob("*") if path.is_file()}
    assert "test_probabilities.npy" in copied
    assert not copied & {"values.npy", "mel.weights.h5"}


def test_the_ensemble_in_a_bucket_is_fetched_whole(finished, bucket, tmp_path):
    settings = tagger_at(Store(bucket.address, tmp_path)).fetch()
    tagger = Tagger.load(settings.parent)
    assert tagger.settings.n_folds == 2
    assert len(list(tmp_path.rglob("*.weights.h5"))) == 2
