"""The projection against scikit-learn, its bounds, and its file."""

import pickle
from dataclasses import fields, replace
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fsat_kedro.audio.projection import Projector, fit_projector, load_projector
from fsat_kedro.errors import InputError


@pytest.fixture
def features(rng):
    """Correlated features of 60 clips, one of them constant."""
    features = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)) + 5
    features[:, 3] = 1234.5
    return features


def saved(projector):
    file = BytesIO()
    projector.save(file)
    return file.getvalue()


def test_the_projection_is_the_exact_one(rng):
    features = rng.normal(3, 5, size=(60, 600))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    _, spread, axes = np.linalg.svd(scaled, full_matrices=False)
    projector = fit_projector(features, 5)
    ratios = spread**2 / (spread**2).sum()
    np.testing.assert_allclose(projector.explained_variance_ratio, ratios[:5], rtol=1e-9)
    np.testing.assert_allclose(np.abs(projector.axes), np.abs(axes[:5]), atol=1e-9)


def test_components_are_those_of_scikit_learn(features, rng):
    pipeline = make_pipeline(StandardScaler(), PCA(5, svd_solver="full")).fit(features)
    others = features.mean(axis=0) + 10 * rng.normal(size=(9, 8))
    for clips in (features, others):
        found = fit_projector(features, 5).unbounded(clips)
        np.testing.assert_allclose(found, pipeline.transform(clips), rtol=1e-9, atol=1e-9)


def test_components_are_uncorrelated_with_decreasing_variance(features):
    components = fit_projector(features, 5).transform(features)
    covariance = np.cov(components.T)
    variances = np.diag(covariance)
    assert components.shape == (60, 5)
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-10)
    assert (np.diff(variances) < 0).all()


def test_projector_ignores_the_unit_of_a_feature(rng):
    features = rng.normal(size=(30, 6))
    scaled = features * [1, 10, 1e3, 1e-3, 1, 1]
    components = [fit_projector(f, 4).transform(f) for f in (features, scaled)]
    np.testing.assert_allclose(components[0], components[1], atol=1e-10)


@pytest.mark.parametrize(("n_clips", "n_features", "n_kept"), [(2, 9, 1), (5, 1133, 4), (50, 8, 8)])
def test_projector_keeps_at_most_the_possible_number_of_components(
    rng, n_clips, n_features, n_kept
):
    features = rng.normal(size=(n_clips, n_features))
    components = fit_projector(features, 350).transform(features)
    assert components.shape == (n_clips, n_kept)
    assert (components.std(axis=0) > 1e-3).all()


def test_one_clip_is_too_few_for_a_projector():
    with pytest.raises(InputError, match="at least 2 clips, got 1"):
        fit_projector(np.zeros((1, 1133)), 350)


# Bounds


def test_training_clips_are_not_bounded(features):
    """So nothing that is fitted to them or predicted for them changes."""
    projector = fit_projector(features, 5)
    components = projector.transform(features)
    np.testing.assert_array_equal(components, projector.unbounded(features))
    np.testing.assert_array_equal(components.min(axis=0), projector.minimum)
    np.testing.assert_array_equal(components.max(axis=0), projector.maximum)


def test_other_clips_have_components_within_the_range_of_the_training_clips(features):
    projector = fit_projector(features, 5)
    components = projector.transform(features.mean(axis=0) + 40 * projector.axes * projector.scale)
    # Clip k goes 40 along axis k, and stays in the middle of the others.
    np.testing.assert_allclose(components, np.diag(projector.maximum), atol=1e-9)


@pytest.mark.parametrize(("widths", "is_unlike"), [(0, False), (0.9, False), (1.1, True)])
@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_a_clip_is_unlike_all_others_if_one_component_is_a_range_beyond(
    features, end, widths, is_unlike
):
    projector = fit_projector(features, 5)
    sign = 1 if end == "maximum" else -1
    component = getattr(projector, end)[2] + sign * widths * (
        projector.maximum[2] - projector.minimum[2]
    )
    clip = projector.mean + component * projector.axes[2] * projector.scale
    assert projector.find_unlike(np.stack([projector.mean, clip])).tolist() == [False, is_unlike]


@pytest.mark.parametrize(("n_beyond", "is_unlike"), [(1, False), (2, True)])
def test_one_component_of_many_makes_no_clip_unlike_all_others(rng, n_beyond, is_unlike):
    projector = fit_projector(rng.normal(size=(60, 50)), 40)
    components = np.zeros(40)
    components[:n_beyond] = 3 * projector.maximum[:n_beyond] - 2 * projector.minimum[:n_beyond]
    clip = projector.mean + components @ projector.axes * projector.scale
    assert projector.find_unlike(clip[None]).tolist() == [is_unlike]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_projector_of_copies_of_one_clip_gives_the_same_components_to_every_clip(rng):
    projector = fit_projector(np.tile(rng.normal(size=600), (3, 1)), 350)
    others = rng.normal(size=(4, 600))
    np.testing.assert_allclose(projector.transform(others), 0, atol=1e-9)
    assert not projector.find_unlike(others).any()


def test_two_copies_of_a_clip_make_no_other_clip_unlike(rng):
    features = rng.normal(size=(6, 600))
    features[5] = features[4]
    projector = fit_projector(features, 350)
    # It has one component without variance, of which nothing can be learnt.
    assert not projector.find_unlike(features.mean(axis=0) + rng.normal(size=(3, 600)) / 100).any()


# Files


def test_a_saved_projector_comes_back(features):
    projector = fit_projector(features, 5)
    found = load_projector(BytesIO(saved(projector)))
    for field in fields(Projector):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(projector, field.name))


def test_a_projector_made_anew_has_the_same_digest(features):
    with ZipFile(BytesIO(saved(fit_projector(features, 5)))) as file:
        assert {member.date_time[0] for member in file.infolist()} == {1980}


@pytest.mark.parametrize("part", [slice(0), slice(100), slice(-100), slice(50, None)])
def test_a_damaged_file_is_refused(features, part):
    content = saved(fit_projector(features, 5))[part]
    with pytest.raises(InputError, match="not a projector"):
        load_projector(BytesIO(content))


class Evil:
    """Code that unpickling would run."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_nothing_is_unpickled(features):
    file = BytesIO()
    arrays = vars(fit_projector(features, 5))
    np.savez(file, **{**arrays, "mean": np.array([Evil()], object)})
    for content in (file.getvalue(), pickle.dumps(Evil())):
        with pytest.raises(InputError, match="not a projector"):
            load_projector(BytesIO(content))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mean", np.zeros(7), "mean has shape"),
        ("minimum", np.zeros(4), "minimum has shape"),
        ("axes", np.zeros(8), "axes has shape"),
        ("scale", np.ones(8, np.float32), "scale has other values"),
        ("scale", np.zeros(8), "a scale is not positive"),
        ("mean", np.full(8, np.nan), "mean has other values"),
        ("minimum", np.full(5, 1e9), "a minimum above its maximum"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(features, name, value, message):
    projector = fit_projector(features, 5)
    with pytest.raises(ValueError, match=message):
        replace(projector, **{name: value})
