"""Measure what wrong labels cost, and what each treatment of them gets back.

    python benchmarks/label_noise.py DATA_DIR WORK_DIR --env ENV --params NAME=VALUE,…

`DATA_DIR` has the results of a run on clean labels with the same parameters. Of its training
labels, a part is made wrong: one in two becomes the class that the clean run confuses most with
it, the others become any other class. Wrong labels are not verified; of the right ones, one in two
is. Then the folds learn from these labels, and are scored on the true ones: a probe on the run's
embeddings, or with `--networks` whole trainings by `kedro run`.

Each line is a JSON object. A training that `WORK_DIR` has already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fsat_kedro.evaluation.label_issues import find_label_issues
from fsat_kedro.evaluation.metrics import N_TAGS, average_precision_at_k, class_indices
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.modelling.baselines import INVERSE_STRENGTH
from fsat_kedro.modelling.label_trust import estimate_trust

PROJECT = Path(__file__).parents[1]
TREATMENTS = {
    "none": {"rounds": 0, "robustness": 0},
    "robust": {"rounds": 0, "robustness": 0.7},
    "1 round": {"rounds": 1, "robustness": 0},
    "2 rounds": {"rounds": 2, "robustness": 0},
    "2 rounds and robust": {"rounds": 2, "robustness": 0.7},
}
PROBES = {"none": 0, "verified clips": None, "1 round": 1, "2 rounds": 2, "3 rounds": 3}
KEPT = ("02_intermediate", "04_feature")


def make_wrong(
    targets: np.ndarray, probabilities: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make a fraction of class indices (n,) wrong, given clean out-of-fold probabilities (n, c).

    Returns:
        The new class indices, and whether each is verified, (n,) each.
    """
    n_clips, n_classes = probabilities.shape
    own = np.eye(n_classes, dtype=bool)
    means = np.array([probabilities[targets == x].mean(axis=0) for x in range(n_classes)])
    confused = np.where(own, -1, means).argmax(axis=1)
    shuffled = rng.permutation(n_clips)
    wrong, right = np.split(shuffled, [round(fraction * n_clips)])
    given = targets.copy()
    others = rng.integers(1, n_classes, len(wrong))
    given[wrong] = (targets[wrong] + others) % n_classes
    confusable = wrong[: len(wrong) // 2]
    given[confusable] = confused[targets[confusable]]
    verified = np.zeros(n_clips, bool)
    verified[right[: len(right) // 2]] = True
    return given, verified


def probe(
    embeddings: np.ndarray,
    targets: np.ndarray,
    verified: np.ndarray,
    folds: np.ndarray,
    rounds: int | None,
    seed: int,
) -> np.ndarray:
    """Predict clips out of fold by a logistic regression on embeddings (n, f).

    With None rounds it learns from verified clips alone.

    Returns:
        Probabilities (n, c).
    """
    probabilities = np.zeros((len(targets), targets.max() + 1))
    for fold in np.unique(folds):
        rows, held_out = np.flatnonzero(folds != fold), folds == fold
        scaler = StandardScaler().fit(embeddings[rows])
        features, weights = scaler.transform(embeddings[rows]), np.ones(len(rows))
        if rounds is None:
            weights[~verified[rows]] = 0
        elif rounds:
            weights = estimate_trust(
                features, targets[rows], verified[rows], rounds=rounds, seed=seed + fold
            )
        regression = LogisticRegression(C=INVERSE_STRENGTH, max_iter=10_000)
        regression.fit(features, targets[rows], weights)
        predicted = regression.predict_proba(scaler.transform(embeddings[held_out]))
        probabilities[held_out] = predicted
    return probabilities


def train(work_dir: Path, arguments: argparse.Namespace, treatment: dict, seed: int) -> None:
    """Train the folds on the labels in a folder, and predict out of fold."""
    parameters = {f"training.label_noise.{name}": x for name, x in treatment.items()}
    parameters |= {"data_dir": work_dir, "seed": seed, "folds.n_folds": arguments.n_folds}
    pairs = [arguments.params, *(f"{name}={x}" for name, x in parameters.items())]
    command = ["kedro", "run", "--env", arguments.env, "--pipelines", "training"]
    with (work_dir / "log.txt").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", *command, "--params", ",".join(filter(None, pairs))],
            **{"cwd": PROJECT, "stdout": log, "stderr": log, "check": True},
        )


def prepare(data_dir: Path, work_dir: Path, clips: pd.DataFrame) -> None:
    """Copy what a training needs, with other labels."""
    for folder in KEPT:
        shutil.copytree(data_dir / folder, work_dir / folder, copy_function=link)
    (work_dir / "06_models").mkdir()
    for path in (data_dir / "06_models").glob("*.*"):
        if path.name in ("mel_statistics.json", "projector.npz"):
            shutil.copy2(path, work_dir / "06_models")
    table = work_dir / "02_intermediate" / "train_clips.pkl"
    table.unlink()
    clips.to_pickle(table)


def link(source: str, target: str) -> None:
    """Link a file to a new name."""
    Path(target).hardlink_to(source)


def score(predictions: Predictions, true: np.ndarray) -> dict[str, float]:
    """Score the out-of-fold predictions on true labels, and the label issues that they show."""
    issues, probabilities = find_label_issues(predictions), predictions.probabilities
    clips, classes = predictions.clips, predictions.labels
    wrong = class_indices(clips["label"], classes) != true
    first, found = issues["row"][: len(clips) // 10], issues["row"][issues["issue"]]
    return {
        "accuracy": average_precision_at_k(true, probabilities, k=1).mean(),
        "map_at_3": average_precision_at_k(true, probabilities, k=N_TAGS).mean(),
        "precision_of_first_tenth": wrong[first].mean(),
        "recall_of_first_tenth": wrong[first].sum() / max(1, wrong.sum()),
        "precision_of_issues": wrong[found].mean() if len(found) else np.nan,
        "recall_of_issues": wrong[found].sum() / max(1, wrong.sum()),
    }


def main() -> None:
    """Print a line of JSON for each fraction of wrong labels, seed and treatment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--env", default="audioset")
    parser.add_argument("--params", default="")
    parser.add_argument("--n-folds", type=int, default=5)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0, 0.2, 0.4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--treatments", nargs="+", default=list(TREATMENTS))
    parser.add_argument("--networks", action="store_true")
    arguments = parser.parse_args()
    data_dir = arguments.data_dir
    clips = pd.read_pickle(data_dir / "02_intermediate" / "train_clips.pkl")
    assert (clips["status"] == "ok").all()
    classes = json.loads((data_dir / "06_models" / "classes.json").read_text())["labels"]
    true = class_indices(clips["label"], classes)
    clean = np.load(data_dir / "07_model_output" / "oof_probabilities.npy")
    embeddings = np.load(data_dir / "04_feature" / "train_embeddings.npy")
    for fraction, seed in product(arguments.fractions, arguments.seeds):
        given, verified = make_wrong(true, clean, fraction, np.random.default_rng(seed))
        labels = pd.array(np.array(classes)[given], dtype="string")
        noisy = clips.assign(label=labels, verified=pd.array(verified, dtype="boolean"))
        row = {"fraction": fraction, "seed": seed}
        folds = np.load(data_dir / "06_models" / "train_folds.npy")
        for name, rounds in () if arguments.networks else PROBES.items():
            probabilities = probe(embeddings, given, verified, folds, rounds, seed)
            scores = score(Predictions(probabilities, noisy, classes, folds), true)
            print(json.dumps({**row, "treatment": f"probe, {name}", **scores}), flush=True)
        for name in arguments.treatments if arguments.networks else []:
            work_dir = arguments.work_dir / f"{fraction} {seed} {name}".replace(" ", "_")
            if not (work_dir / "07_model_output" / "cv_scores.json").exists():
                shutil.rmtree(work_dir, ignore_errors=True)
                prepare(data_dir, work_dir, noisy)
                train(work_dir, arguments, TREATMENTS[name], seed)
            probabilities = np.load(work_dir / "07_model_output" / "oof_probabilities.npy")
            folds = np.load(work_dir / "06_models" / "train_folds.npy")
            scores = score(Predictions(probabilities, noisy, classes, folds), true)
            print(json.dumps({**row, "treatment": name, **scores}), flush=True)


if __name__ == "__main__":
    main()
