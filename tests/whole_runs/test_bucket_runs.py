"""Whole runs of several machines that share an S3 bucket and no folder.

Their networks have the tiny backbone.
"""

import re
import shutil
import time

import fsspec
import pytest
from dask_cluster import Cluster
from distributed import Client
from kill_and_resume import differences, start
from s3_server import BUCKET, s3_server

from fsat_kedro.hooks.marks import Marks
from whole_runs import TINY, kedro, make_tiny_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout without data."""
    return make_tiny_project(tmp_path_factory.mktemp("project") / "checkout")


@pytest.fixture(scope="module")
def demo(finished_tiny_demo):
    """The outputs of a short undisturbed run of everything on the demo."""
    return finished_tiny_demo.outputs


class Bucket:
    """The objects of an S3 bucket, below a prefix that runs write to.

    Every process keeps its copies in the folder that it was started in. No process sees those of
    another, as if each ran on a machine of its own.
    """

    url = f"s3://{BUCKET}/demo"

    def __init__(self, folder):
        self.folder = folder
        self.files = fsspec.filesystem("s3", use_listings_cache=False)
        self.parameters = {
            **TINY,
            "data_dir": self.url,
            "raw_dir": folder / "raw",
            "cache_dir": "/proc/self/cwd/cache",
        }

    def changed(self):
        """Return when each object was written, by its path below the prefix."""
        start = self.url.removeprefix("s3://")
        objects = self.files.find(start, detail=True)
        return {key[len(start) + 1 :]: info["LastModified"] for key, info in objects.items()}

    def difference_from(self, outputs):
        """Return the `differences`, except in the raw clips, which are in no bucket."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        self.files.get(self.url, str(copy), recursive=True)
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
    """A run to the end of the first stages, on workers that share no folder.

    One worker is killed while it trains.
    """
    folder = bucket.folder
    machine = make_tiny_project(folder / "clustered")
    cluster = Cluster(folder, source=machine / "src")
    try:
        for name in ("one", "two"):
            (folder / name).mkdir()
            cluster.add_worker(name, cwd=folder / name)
        parameters = ",".join(f"{name}={value}" for name, value in bucket.parameters.items())
        runner = ["--runner", "fsat_kedro.cluster.DaskRunner"]
        address = ["--runner-params", f"address={cluster.address}"]
        last = [f"training.{fold}.train_mel" for fold in ("fold_1", "fold_2")]
        last.append("features.project.project_train_summary")
        arguments = [*runner, *address, "--to-nodes", ",".join(last), "--params", parameters]
        process = start(machine, *arguments)
        log = machine / "run.log"
        kept = f"{bucket.url}/06_models/fold_1/mel.checkpoint.npz"
        while process.poll() is None and not bucket.files.exists(kept):
            time.sleep(0.2)  # The server runs in this process, and takes time for each answer.
        # The process of the nanny: the worker dies with it, and nothing takes its place.
        cluster.workers[worker_that_runs("fold_1.train_mel", cluster)].kill()
        assert process.wait() == 0, log.read_text()
    finally:
        cluster.close()
    return machine


def worker_that_runs(node, cluster):
    """Return the name of the worker that runs a node of the pipeline `training`."""
    with Client(cluster.address) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        for worker, keys in client.processing().items():
            if any(f"training.{node}" in str(key) for key in keys):
                return workers[worker]["name"]
    raise AssertionError(f"no worker runs {node}")


def test_a_cluster_makes_the_same_though_a_worker_is_killed_while_it_trains(
    clustered, bucket, demo
):
    from mlflow import MlflowClient

    log = (clustered / "run.log").read_text()
    assert re.search("fold_1 mel: resumes after epoch [1-5]", log)
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
            assert [metric.step for metric in logged] == [1, 2, 3, 4, 5, 6]
    assert parent.data.metrics["clips/train.listed"] == TINY["demo.n_train"]


@pytest.fixture(scope="module")
def finished(clustered, bucket, project, demo):
    """The objects once another machine, without a cluster, has finished the run.

    A third machine made the second stage of fold 2.
    """
    for name in (
        "06_models/fold_2/mel_pca.weights.h5",
        "06_models/fold_2/mel_pca_history.csv",
        "07_model_output/fold_2/oof.npy",
        "07_model_output/fold_2/test.npy",
    ):
        bucket.files.put_file(str(demo / name), f"{bucket.url}/{name}")
    missing = ("run", "--env", "demo", "--only-missing-outputs")
    run = kedro(project, *missing, **bucket.parameters)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"report: {bucket.url}/08_reporting/report.html" in run.stdout
    assert re.findall(r"fold_\d\.train_\w+", run.stdout) == ["fold_1.train_mel_pca"]
    return bucket.changed()


def test_another_machine_finishes_what_a_cluster_began_in_a_bucket(finished, bucket, demo):
    assert bucket.difference_from(demo) == []


def test_a_machine_without_copies_makes_only_what_is_missing_in_the_bucket(
    finished, bucket, project, demo
):
    shutil.rmtree(project / "cache")
    lost = "07_model_output/test_scores.json"
    bucket.files.rm(f"{bucket.url}/{lost}")
    missing = ("run", "--env", "demo", "--only-missing-outputs")
    run = kedro(project, *missing, **bucket.parameters)
    assert run.returncode == 0, run.stdout + run.stderr
    changed = bucket.changed()
    assert {name for name, moment in changed.items() if finished[name] != moment} == {lost}
    assert bucket.difference_from(demo) == []
    copied = {path.name for path in (project / "cache").rglob("*") if path.is_file()}
    assert not copied & {"values.npy", "mel.weights.h5"}


def test_an_ensemble_in_a_bucket_tags_a_file(finished, bucket, project, demo):
    sound = next((demo / "01_raw" / "FSDKaggle2018.audio_train").glob("*.wav"))
    tag = ("tag", "--env", "demo", "--data-dir", bucket.url, str(sound))
    tagged = kedro(project, *tag)
    assert tagged.returncode == 0, tagged.stdout + tagged.stderr
    assert len(tagged.stdout.splitlines()) == 4
    copies = project / "data" / "cache"
    assert {path.name for path in copies.rglob("*.weights.h5")} == {"mel_pca.weights.h5"}
    marks = Marks(bucket.url)
    marks.mark_unfinished({"mel_pca_weights_2"})
    refused = kedro(project, *tag)
    marks.mark_finished("mel_pca_weights_2")
    assert refused.returncode == 1
    assert f"Error: not finished in {bucket.url}: mel_pca_weights_2." in refused.stderr


def test_an_ensemble_in_a_bucket_tags_a_folder(finished, bucket, project, demo):
    sounds = demo / "01_raw" / "FSDKaggle2018.audio_test"
    run = ("run", "--env", "demo", "--pipelines", "tag")
    tagged = kedro(project, *run, **bucket.parameters, tag_dir=sounds)
    assert tagged.returncode == 0, tagged.stdout + tagged.stderr
    assert "8 sounds tagged, 3 rejected" in tagged.stdout
    assert bucket.files.exists(f"{bucket.url}/07_model_output/tags.csv")
