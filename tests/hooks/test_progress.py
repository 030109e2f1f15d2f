import logging
import pickle
import sys
from pathlib import Path

import pandas as pd
import pytest
from kedro.framework.cli.utils import KedroCliError
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from fsat_kedro.hooks import progress
from fsat_kedro.hooks.progress import ProgressHooks, format_clip_counts, format_scores

SCORES = pd.DataFrame(
    {
        "clips": ["fold 1", "cross-validation", "test private"],
        "n_clips": [40, 9473, 1300],
        "map_at_3": [0.1, 0.8555, 1.0],
        "map_at_3_low": [0.1, 0.81, 0.8],
        "map_at_3_high": [0.1, 0.8967, 1.0],
        "accuracy": [0.1, 0.8, 0.9],
        "accuracy_low": [0.1, 0.75, 0.7],
        "accuracy_high": [0.1, 0.855, 1.0],
    }
)
REJECTED = pd.DataFrame({"split": ["train", "train"], "reason": ["no samples", "gone"]})


def test_clip_counts_have_the_most_frequent_reasons():
    reasons = pd.Series(["gone"] * 3 + list("abcdef"))
    line = format_clip_counts(
        {"listed": 20, "rejected": 9, "with_warnings": 0, "unlisted": 4}, reasons
    )
    assert line.startswith("20 clips, 9 rejected (gone: 3, a: 1, ")
    assert line.endswith(", 2 more reasons), 4 unlisted")


def test_clip_counts_without_rejected_clips_have_no_reasons():
    counts = {"listed": 3, "rejected": 0, "with_warnings": 2, "unlisted": 0}
    line = format_clip_counts(counts, pd.Series([], dtype=str))
    assert line == "3 clips, 0 rejected, 2 with warnings"


def test_clip_counts_tell_of_corrected_labels():
    counts = {"listed": 3, "rejected": 1, "with_warnings": 0, "unlisted": 0}
    line = format_clip_counts({**counts, "labels_changed": 2}, pd.Series(["dropped"]))
    assert line == "3 clips, 1 rejected (dropped: 1), 2 labels changed"


def test_scores_are_aligned_whatever_their_names():
    longer = SCORES.replace("cross-validation", "cross-validation, verified clips")
    head, *lines = format_scores(longer).splitlines()
    assert head.index("MAP@3") == lines[0].index("0.856") == lines[1].index("1.000")


def test_scores_are_aligned_and_without_single_folds():
    head, *lines = format_scores(SCORES).splitlines()
    assert lines == [
        "cross-validation    9473   0.856 (0.810 to 0.897)   0.800 (0.750 to 0.855)",
        "test private        1300   1.000 (0.800 to 1.000)   0.900 (0.700 to 1.000)",
    ]
    assert head.index("MAP@3") == lines[0].index("0.856")
    assert head.index("accuracy") == lines[0].index("0.800")


def node_of(outputs, *, inputs=None, tags=()):
    return node(lambda *_: None, inputs, outputs, name=f"make_{outputs}", tags=tags)


def dataset_at(path, data=None):
    dataset = MemoryDataset(data)
    dataset._filepath = path
    return dataset


@pytest.fixture
def lines(caplog):
    """Return the lines that the hooks have logged."""
    caplog.set_level("INFO", "fsat_kedro")
    return lambda: [record.message for record in caplog.records if "fsat_kedro" in record.name]


@pytest.fixture
def catalog():
    """The datasets that are shown at the end, on disk and in a store."""
    return DataCatalog(
        {
            "report": dataset_at(Path.cwd() / "data/report.html"),
            "submission": dataset_at("s3://bucket/submission.csv"),
            "scores": dataset_at(Path("/elsewhere/scores.csv"), SCORES),
            "rejected_clips": dataset_at(Path.cwd() / "data/rejected_clips.csv", REJECTED),
            "clip_warnings": dataset_at("warnings.csv", REJECTED[:0]),
            "params:data_dir": MemoryDataset(str(Path.cwd() / "data")),
            "clip_counts": MemoryDataset(
                {
                    "train": {"listed": 7, "rejected": 2, "with_warnings": 0, "unlisted": 0},
                    "test": {"listed": 4, "rejected": 0, "with_warnings": 0, "unlisted": 1},
                }
            ),
        }
    )


def test_every_node_is_a_line_with_its_number(lines):
    nodes = [node_of("a"), node_of("b")]
    hooks = ProgressHooks()
    hooks.before_pipeline_run(Pipeline(nodes))
    for each in nodes:
        hooks.before_node_run(each)
    assert lines() == ["1/2 make_a", "2/2 make_b"]


def test_workers_log_the_numbers_of_the_whole_run(lines):
    nodes = [node_of("a"), node_of("b")]
    hooks = ProgressHooks()
    hooks.before_pipeline_run(Pipeline(nodes))
    workers = [pickle.loads(pickle.dumps(hooks.for_worker(each, set()))) for each in nodes]
    for worker, each in zip(workers, nodes, strict=True):
        worker.before_node_run(each)
    assert lines() == ["1/2 make_a", "2/2 make_b"]


@pytest.mark.parametrize(("verbose", "imported"), [(False, ["keras"]), (True, [])])
def test_keras_is_imported_quietly_for_nodes_that_use_it(monkeypatch, verbose, imported):
    monkeypatch.setattr(KedroCliError, "VERBOSE_ERROR", verbose)
    monkeypatch.setattr(logging.getLogger("kedro"), "level", logging.WARNING)
    for name in ("kedro_viz", "tensorflow"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.ERROR)
    imports = []
    monkeypatch.setattr(progress, "import_keras_quietly", lambda: imports.append("keras"))
    hooks = ProgressHooks()
    nodes = [node_of("a"), node_of("b", tags="gpu")]
    hooks.before_pipeline_run(Pipeline(nodes))
    assert logging.getLogger("kedro").level == (logging.INFO if verbose else logging.WARNING)
    for name in ("kedro_viz", "tensorflow"):
        level = logging.getLogger(name).level
        assert level == (logging.WARNING if verbose else logging.ERROR)
    hooks.before_node_run(nodes[0])
    assert imports == []
    hooks.before_node_run(nodes[1])
    assert imports == imported


@pytest.mark.parametrize("source", ["", "raise ValueError"])
def test_what_an_import_of_keras_writes_is_shown_only_if_it_fails(
    tmp_path, monkeypatch, capfd, source
):
    (tmp_path / "keras.py").write_text(f"import os\nos.write(2, b'no GPU')\n{source}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    if source:
        with pytest.raises(ValueError):  # noqa: PT011
            progress.import_keras_quietly()
    else:
        progress.import_keras_quietly()
    assert capfd.readouterr().err == ("no GPU" if source else "")
    sys.modules.pop("keras", None)
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "after\n"


def test_a_run_ends_with_clips_scores_and_paths(lines, catalog):
    pipeline = Pipeline(
        [node_of(name, inputs="train_clips") for name in catalog if not name.startswith("params:")]
    )
    ProgressHooks().after_pipeline_run({"env": "demo"}, pipeline, catalog)
    assert lines() == [
        "train: 7 clips, 2 rejected (no samples: 1, gone: 1)",
        "test: 4 clips, 0 rejected, 1 unlisted",
        f"Scores, with 95 % intervals:\n{format_scores(SCORES)}",
        "report: data/report.html",
        "submission: s3://bucket/submission.csv",
        "scores: /elsewhere/scores.csv",
        "rejected clips: data/rejected_clips.csv",
        "Next: kedro viz run --env demo --include-hooks",
        "Next: mlflow ui",
        "Next: kedro tag --data-dir data FILE",
        "Next: kedro app --data-dir data",
    ]


def test_only_what_the_run_made_is_shown(lines, catalog):
    ProgressHooks().after_pipeline_run({}, Pipeline([node_of("submission")]), catalog)
    assert lines() == ["submission: s3://bucket/submission.csv"]


def test_clips_that_are_not_counted_yet_are_not_shown(lines, catalog):
    catalog["clip_counts"] = MemoryDataset()
    pipeline = Pipeline([node_of("train_clips", inputs="raw")])
    ProgressHooks().after_pipeline_run({}, pipeline, catalog)
    assert lines() == []
