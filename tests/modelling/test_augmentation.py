import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsat_kedro.modelling import augmentation as augment

SEEDS = st.integers(0, 2**32)


def numbered(n_frames, n_mels=3):
    """Make a spectrogram in which each value is its own index."""
    return np.arange(n_frames * n_mels, dtype=np.float32).reshape(n_frames, n_mels)


# Crop, shift and flip


def in_steps(mel, length, *, start, shift=0, flip=False):
    """Pad and crop a spectrogram, then move it, then reverse it, with a copy for each."""
    stop = start + length
    before, after = max(0, -start), max(0, stop - len(mel))
    mel = np.pad(mel, ((before, after), (0, 0)), mode="symmetric")[start + before : stop + before]
    if shift > 0:
        mel = np.pad(mel, ((shift, 0), (0, 0)), mode="edge")[:length]
    elif shift < 0:
        mel = np.pad(mel, ((0, -shift), (0, 0)), mode="edge")[-shift:]
    return mel[::-1] if flip else mel


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(-100, 100), st.integers(-60, 60), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 60),
)
def test_composed_frames_are_those_of_crop_shift_and_flip_in_turn(clips, length):
    n_frames, start, shift, flip = map(np.array, zip(*clips, strict=True))
    frames = augment.source_frames(n_frames, length, start=start, shift=shift, flip=flip)
    assert frames.shape == (len(clips), length)
    for ours, clip in zip(frames, clips, strict=True):
        mel = numbered(clip[0])
        steps = in_steps(mel, length, start=clip[1], shift=clip[2], flip=clip[3])
        np.testing.assert_array_equal(mel[ours], steps)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1, 2, 3]),
        ({"start": -2}, [1, 0, 0]),
        ({"start": 4}, [4, 4, 3]),
        ({"shift": 1}, [1, 1, 2]),
        ({"shift": -1}, [2, 3, 3]),
        ({"flip": True}, [3, 2, 1]),
        ({"shift": 1, "flip": True}, [2, 1, 1]),
    ],
)
def test_frames_of_a_crop_of_five_frames_by_hand(changes, expected):
    frames = augment.source_frames(5, 3, **{"start": 1, **changes})
    assert frames.tolist() == expected


@pytest.mark.parametrize(
    ("n_frames", "length", "starts"), [(7, 4, [0, 1, 2, 3]), (4, 7, [-3, -2, -1, 0]), (5, 5, [0])]
)
def test_every_start_is_drawn_equally_often(rng, n_frames, length, starts):
    drawn = augment.draw_crop_start(np.full(4000, n_frames), length, rng)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == starts
    np.testing.assert_allclose(counts / 4000, 1 / len(starts), atol=0.05)
    assert augment.draw_crop_start(n_frames, length, rng) in starts


@given(length=st.integers(1, 800), limit=st.floats(0, 1), seed=SEEDS)
def test_a_drawn_shift_stays_within_its_limit(length, limit, seed):
    frames = augment.draw_shift(length, limit, np.random.default_rng(seed))
    assert abs(frames) <= limit * length + 0.5


def test_shifts_are_uniform_and_go_both_ways(rng):
    shifts = augment.draw_shift(100, 0.6, rng, 3000)
    assert shifts.dtype == int
    assert (shifts.min(), shifts.max()) == (-60, 60)
    assert abs(shifts.mean()) < 3
    assert np.mean(np.abs(shifts) <= 30) == pytest.approx(0.5, abs=0.05)


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
    assert np.zeros(shape)[rows].size == np.zeros(shape)[:, columns].size == 0


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
def test_a_box_has_any_size_from_one_cell_to_all(rng, shape):
    boxes = [augment.draw_box(shape, area=(0.01, 1.0), aspect=0.2, rng=rng) for _ in range(500)]
    for axis, size in zip(zip(*boxes, strict=True), shape, strict=True):
        assert {side.stop - side.start for side in axis} == set(range(1, size + 1))


def test_boxes_are_wide_and_high_and_reach_both_ends_of_both_axes(rng):
    shape = (400, 400)
    boxes = [augment.draw_box(shape, area=(0.1, 0.1), aspect=0.5, rng=rng) for _ in range(300)]
    ratios = [(b.stop - b.start) / (t.stop - t.start) for t, b in boxes]
    assert min(ratios) == pytest.approx(0.5, abs=0.05)
    assert max(ratios) == pytest.approx(2, abs=0.1)
    for axis in zip(*boxes, strict=True):
        assert min(side.start for side in axis) < 20
        assert max(side.stop for side in axis) > 380


# Masks


def test_a_mask_lies_anywhere_on_the_axis_and_is_no_longer_than_its_limit(rng):
    masks = [augment.draw_mask(10, 0.3, rng) for _ in range(500)]
    assert {mask.stop - mask.start for mask in masks} == {0, 1, 2, 3}
    longest = [mask for mask in masks if mask.stop - mask.start == 3]
    assert {mask.start for mask in longest} == set(range(8))
    assert {augment.draw_mask(10, 0, rng).stop for _ in range(200)} == set(range(11))


# Mixup


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_mixup_weights_have_the_variance_of_their_beta_distribution(rng, alpha):
    weights = augment.draw_mixup_weights(4000, alpha, rng)
    assert weights.shape == (4000,)
    assert weights.dtype == np.float32
    assert ((weights >= 0) & (weights <= 1)).all()
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_matches_a_worked_example():
    clips, partners = np.array([[0.0, 8.0], [4.0, 0.0]]), np.array([[4.0, 0.0], [0.0, 8.0]])
    before = clips.copy(), partners.copy()
    mixed = augment.mixup(clips, partners, np.array([[0.75], [0.5]]))
    np.testing.assert_allclose(mixed, [[1, 6], [2, 4]])
    np.testing.assert_array_equal((clips, partners), before)


def test_mixup_of_single_precision_stays_so(rng):
    clips, partners = rng.random((2, 3, 4), np.float32)
    weights = augment.draw_mixup_weights(3, 1.0, rng)
    assert augment.mixup(clips, partners, weights[:, None]).dtype == np.float32
    assert augment.mixup(clips[0], partners[0], weights[0]).dtype == np.float32
