import subprocess
import sys

import numpy as np
import pytest

from fsat_kedro.modelling.baselines import logistic_regression, predict_out_of_fold, random_forest

MODELS = {"forest": random_forest(seed=0, n_jobs=1), "regression": logistic_regression()}


def clips_of(n_classes=3):
    rng = np.random.default_rng(0)
    targets = np.arange(60) % n_classes
    features = 3 * np.eye(n_classes)[targets] + rng.normal(size=(60, n_classes))
    return features, targets, 1 + np.arange(60) // 20


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_classes_that_are_easily_told_apart_are_told_apart(model):
    features, targets, folds = clips_of()
    probabilities = predict_out_of_fold(model, features, targets, folds)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == targets).mean() > 0.85


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_clip_is_predicted_by_clips_of_other_folds(model):
    features, targets, folds = clips_of()
    before = predict_out_of_fold(model, features, targets, folds)
    targets[folds == 2] = (targets[folds == 2] + 1) % 3
    after = predict_out_of_fold(model, features, targets, folds)
    np.testing.assert_allclose(before[folds == 2], after[folds == 2])
    assert not np.allclose(before[folds == 1], after[folds == 1])


def test_a_class_of_a_single_fold_is_improbable_there():
    features, targets, folds = clips_of()
    targets = np.where((targets == 2) & (folds != 3), 0, targets)
    probabilities = predict_out_of_fold(MODELS["regression"], features, targets, folds)
    assert probabilities.shape == (60, 3)
    assert (probabilities[folds == 3, 2] == 0).all()


def test_baselines_and_trust_need_no_keras():
    code = "import fsat_kedro.modelling.label_trust, sys; sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
