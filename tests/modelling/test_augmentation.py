import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fsat_kedro.modelling import augmentation as augment

SEEDS = st.integers(0, 2**32)


def numbered(n_frames, n_mels=3):
    """Make a spectrogram in which each value is its own index."""
    return np.arange(n_frames * n_mels, dtype=np.float32).reshape(n_frames, n_mels)


# Crops


def crop_or_pad(mel, length, rng):
    return augment.crop(mel, augment.draw_crop_start(len(mel), length, rng), length)


@given(n_frames=st.integers(1, 40), fraction=st.floats(0, 1), seed=SEEDS)
def test_a_crop_is_a_part_of_the_clip(n_frames, fraction, seed):
    length = max(1, round(fraction * n_frames))
    mel = numbered(n_frames)
    crop = crop_or_pad(mel, length, np.random.default_rng(seed))
    start = int(crop[0, 0]) // 3
    assert 0 <= start <= n_frames - length
    np.testing.assert_array_equal(crop, mel[start : start + length])


@given(n_frames=st.integers(1, 20), missing=st.integers(1, 100), seed=SEEDS)
def test_padding_mirrors_the_clip_at_an_offset(n_frames, missing, seed):
    mel = numbered(n_frames)
    before = mel.copy()
    padded = crop_or_pad(mel, n_frames + missing, np.random.default_rng(seed))
    candidates = [
        np.pad(mel, ((left, missing - left), (0, 0)), mode="symmetric")
        for left in range(missing + 1)
    ]
    assert any(np.array_equal(padded, candidate) for candidate in candidates)
    np.testing.assert_array_equal(mel, before)


def test_a_clip_of_one_frame_is_repeated(rng):
    padded = crop_or_pad(np.array([[1.0, 2.0]]), 4, rng)
    np.testing.assert_array_equal(padded, [[1, 2]] * 4)


@pytest.mark.parametrize(("n_frames", "length"), [(7, 4), (4, 7)])
def test_every_position_is_drawn(rng, n_frames, length):
    crops = [crop_or_pad(numbered(n_frames), length, rng) for _ in range(200)]
    assert len({crop.tobytes() for crop in crops}) == 4


# Shift and flip


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(0, [0, 1, 2, 3]), (1, [0, 0, 1, 2]), (-2, [2, 3, 3, 3]), (9, [0, 0, 0, 0])],
)
def test_a_shift_repeats_the_edge(frames, expected):
    mel = np.array([[0], [1], [2], [3]])
    assert augment.shift(mel, frames)[:, 0].tolist() == expected
    assert mel[:, 0].tolist() == [0, 1, 2, 3]


@given(length=st.integers(1, 800), limit=st.floats(0, 1), seed=SEEDS)
def test_a_drawn_shift_stays_within_its_limit(length, limit, seed):
    frames = augment.draw_shift(length, limit, np.random.default_rng(seed))
    assert abs(frames) <= limit * length + 0.5


def test_shifts_go_both_ways(rng):
    shifts = [augment.draw_shift(100, 0.6, rng) for _ in range(300)]
    assert min(shifts) < -50
    assert max(shifts) > 50


def test_a_flip_reverses_time_and_two_flips_cancel():
    mel = numbered(4)
    np.testing.assert_array_equal(augment.flip(mel)[0], mel[3])
    np.testing.assert_array_equal(augment.flip(augment.flip(mel)), mel)


# Erasing


@settings(max_examples=200)
@given(n_frames=st.integers(20, 800), n_mels=st.integers(20, 128), seed=SEEDS)
def test_a_box_lies_inside_and_has_the_stated_area_and_aspect(n_frames, n_mels, seed):
    rows, columns = augment.draw_box(
        (n_frames, n_mels), area=(0.02, 0.4), aspect=0.3, rng=np.random.default_rng(seed)
    )
    assert 0 <= rows.start < rows.stop <= n_frames
    assert 0 <= columns.start < columns.stop <= n_mels
    height, width = rows.stop - rows.start, columns.stop - columns.start
    # Each side is rounded, by half a row at most.
    assert (height - 0.5) * (width - 0.5) <= 0.4 * n_frames * n_mels
    assert (height + 0.5) * (width + 0.5) >= 0.02 * n_frames * n_mels
    assert (height - 0.5) / (width + 0.5) <= 1 / 0.3
    assert (height + 0.5) / (width - 0.5) >= 0.3


@pytest.mark.parametrize(
    ("shape", "area"), [((20, 64), (0.0, 0.0)), ((763, 64), (0.4, 0.4)), ((763, 64), (1.0, 1.0))]
)
def test_a_box_that_does_not_fit_is_empty(rng, shape, area):
    rows, columns = augment.draw_box(shape, area=area, aspect=0.3, rng=rng)
    assert np.zeros(shape)[rows, columns].size == 0


@given(n_frames=st.integers(2, 30), seed=SEEDS, value=st.floats(0, 1))
def test_erasing_changes_only_the_box_and_not_the_input(n_frames, seed, value):
    mel = numbered(n_frames, 20) + 2
    before = mel.copy()
    rng = np.random.default_rng(seed)
    box = augment.draw_box(mel.shape, area=(0.02, 0.4), aspect=0.3, rng=rng)
    erased = augment.erase(mel, box, value)
    np.testing.assert_array_equal(mel, before)
    inside = np.zeros(mel.shape, bool)
    inside[box] = True
    np.testing.assert_array_equal(erased[~inside], mel[~inside])
    np.testing.assert_array_equal(erased[inside], np.float32(value))


# Mixup


@given(n=st.integers(1, 64), alpha=st.sampled_from([0.1, 0.5, 1.0, 4.0]), seed=SEEDS)
def test_partners_are_a_permutation_and_weights_are_fractions(n, alpha, seed):
    partners, weights = augment.draw_mixup(n, alpha, np.random.default_rng(seed))
    assert sorted(partners) == list(range(n))
    assert weights.shape == (n,)
    assert weights.dtype == np.float32
    assert ((weights >= 0) & (weights <= 1)).all()


def test_mixup_matches_a_worked_example():
    batch = np.array([[0.0, 8.0], [4.0, 0.0]])
    mixed = augment.mixup(batch, np.array([1, 0]), np.array([0.75, 0.5]))
    np.testing.assert_allclose(mixed, [[1, 6], [2, 4]])
    np.testing.assert_array_equal(batch, [[0, 8], [4, 0]])


@given(n=st.integers(1, 16), seed=SEEDS)
def test_mixup_treats_all_inputs_and_labels_alike_and_keeps_their_sum(n, seed):
    rng = np.random.default_rng(seed)
    values = rng.random(n, dtype=np.float32)
    labels = np.eye(5, dtype=np.float32)[rng.integers(5, size=n)]
    partners, weights = augment.draw_mixup(n, 1.0, rng)
    mel = augment.mixup(np.tile(values[:, None, None, None], (1, 4, 6, 1)), partners, weights)
    pca = augment.mixup(np.tile(values[:, None], (1, 3)), partners, weights)
    targets = augment.mixup(labels, partners, weights)
    expected = weights * values + (1 - weights) * values[partners]
    np.testing.assert_allclose(mel, np.broadcast_to(expected[:, None, None, None], mel.shape))
    np.testing.assert_allclose(pca, np.broadcast_to(expected[:, None], pca.shape))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert mel.dtype == pca.dtype == targets.dtype == np.float32
    own = labels.argmax(axis=1)
    changed = own != own[partners]
    assume(changed.any())
    np.testing.assert_allclose(targets[np.arange(n), own][changed], weights[changed], rtol=1e-6)
