from dataclasses import replace

import numpy as np
import pytest

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.modelling.batches import TrainingBatches
from fsat_kedro.modelling.crop_lengths import predictions_per_clip
from fsat_kedro.modelling.crops import Clips, CropBatches
from fsat_kedro.parameters import Augmentation, TestTimeCrops

N_CLIPS, N_MELS = 11, 4
OFF = dict.fromkeys(("shift", "flip", "roll", "gain", "time_mask", "frequency_mask"), 0)
PLAIN = Augmentation(**OFF, erase={"probability": 0, "area": (0, 0), "aspect": 1})
FULL = Augmentation.model_validate(
    {
        **OFF,
        "shift": 0.6,
        "flip": 0.5,
        "erase": {"probability": 0.5, "area": (0.02, 0.4), "aspect": 0.3},
    }
)


def clips_of(rows, *, order=range(N_CLIPS), components=True, targets=None):
    """Make clips of random values, in some order; clip k has k as its first component."""
    rng = np.random.default_rng(0)
    mels = [rng.uniform(-80, 20, (int(n), N_MELS)) for n in rng.integers(3, 40, N_CLIPS)]
    lengths = [len(mels[clip]) for clip in order]
    values = np.concatenate([mels[clip] for clip in order]).astype(np.float32)
    levels = {"minimum": float(values.min()), "maximum": float(values.max())}
    return Clips(
        np.array(rows),
        [f"{clip}.wav" for clip in order],
        RaggedArray(values, np.cumsum([0, *lengths])),
        np.array([[clip, 0.5] for clip in order]) if components else None,
        {**levels, "shortest": 5, "longest": 30},
        targets,
    )


def training_batches(rows=range(N_CLIPS), **changes):
    settings = {
        "batch_size": 3,
        "lengths": range(5, 31),
        "augmentation": FULL,
        "mixup_alpha": 1.0,
        "seed": 1,
    }
    components = changes.pop("components", True)
    targets = np.eye(N_CLIPS, dtype=np.float32)
    clips = clips_of(rows, components=components, targets=targets)
    return TrainingBatches(clips, **{**settings, **changes})


def assert_same_batch(first, second):
    for ours, theirs in zip((*first[0], first[1]), (*second[0], second[1]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Training


def test_a_training_batch_has_the_shapes_that_the_network_takes():
    for components in (True, False):
        batches = training_batches(components=components)
        inputs, targets = batches[0]
        n, m, t, channels = inputs[0].shape
        assert (m, channels) == (N_MELS, 1)
        assert n <= 3
        assert 5 <= t <= 30
        assert targets.shape == (n, N_CLIPS)
        assert [part.shape for part in inputs[1:]] == [(n, 2)] * components
        assert all(part.dtype == np.float32 for part in (*inputs, targets))


def test_all_values_lie_within_0_and_1():
    batches = training_batches()
    for _ in range(5):
        for index in range(len(batches)):
            (mel, _), targets = batches[index]
            assert mel.min() >= 0
            assert mel.max() <= 1
            np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        batches.on_epoch_end()


def test_lengths_reach_both_ends_of_the_range_and_stay_inside():
    batches = training_batches(lengths=range(5, 9))
    lengths = set()
    for _ in range(30):
        lengths |= {batches[index][0][0].shape[2] for index in range(len(batches))}
        batches.on_epoch_end()
    assert lengths == {5, 6, 7, 8}


def test_the_first_two_batches_of_an_epoch_differ_in_length_if_possible():
    batches = training_batches(lengths=range(7, 9))
    for _ in range(30):
        assert {batches[index][0][0].shape[2] for index in (0, 1)} == {7, 8}
        batches.on_epoch_end()
    fixed = training_batches(lengths=[7])
    assert {fixed[index][0][0].shape[2] for index in range(len(fixed))} == {7}


def test_each_later_batch_has_a_length_of_its_own():
    batches, lengths = training_batches(lengths=[7, 8]), set()
    for _ in range(30):
        lengths.add(tuple(batches[index][0][0].shape[2] for index in (2, 3)))
        batches.on_epoch_end()
    assert lengths == {(7, 7), (7, 8), (8, 7), (8, 8)}


@pytest.mark.parametrize(("rows", "n_batches"), [(range(N_CLIPS), 4), ([2, 5, 7], 2), ([4, 9], 2)])
def test_an_epoch_uses_every_training_clip_once_and_no_other(rows, n_batches):
    batches = training_batches(rows, augmentation=PLAIN, mixup_alpha=0)
    assert len(batches) == n_batches
    for _ in range(3):
        seen = np.concatenate([batches[index][0][1][:, 0] for index in range(n_batches)])
        labels = np.concatenate([batches[index][1].argmax(axis=1) for index in range(n_batches)])
        assert sorted(seen) == list(rows)
        np.testing.assert_array_equal(seen, labels)
        batches.on_epoch_end()


def steady_batches(**changes):
    """Make training batches of clips whose frames are all alike: clip k is k / 10 everywhere."""
    clips = clips_of(range(N_CLIPS), targets=np.eye(N_CLIPS, dtype=np.float32))
    numbers = np.repeat(np.arange(N_CLIPS), clips.mels.lengths)
    values = np.repeat(numbers[:, None], N_MELS, axis=1).astype(np.float32)
    mels = RaggedArray(values, clips.mels.offsets)
    statistics = {**clips.mel_statistics, "minimum": 0.0, "maximum": 10.0}
    batches = training_batches(augmentation=PLAIN, **changes)
    batches._clips = replace(clips, mels=mels, mel_statistics=statistics)
    return batches


def test_mixup_uses_every_clip_once_as_itself_and_once_as_a_partner():
    batches = steady_batches(seed=3)
    own = np.concatenate([batches._draw_rows(index) for index in range(len(batches))])
    partners = np.concatenate(
        [batches._draw_rows(index, partners=True) for index in range(len(batches))]
    )
    assert sorted(own) == sorted(partners) == list(range(N_CLIPS))
    assert not np.array_equal(own, partners)
    mass = sum(batches[index][1].sum() for index in range(len(batches)))
    assert mass == pytest.approx(N_CLIPS)


def test_spectrograms_components_and_labels_are_mixed_with_one_partner_and_weight():
    batches = steady_batches()
    for index in range(len(batches)):
        (mel, pca), targets = batches[index]
        np.testing.assert_allclose(pca[:, 0], targets @ np.arange(N_CLIPS), rtol=1e-5)
        expected = np.broadcast_to(pca[:, :1, None, None] / 10, mel.shape)
        np.testing.assert_allclose(mel, expected, atol=1e-6)
        for row, label in zip(batches._draw_rows(index), targets, strict=True):
            assert label[row] > 0
            assert np.count_nonzero(label) <= 2


def test_partners_come_from_all_training_clips():
    batches, elsewhere = steady_batches(), 0
    for _ in range(5):
        for index in range(len(batches)):
            partners = np.flatnonzero(batches[index][1].sum(axis=0))
            elsewhere += len(set(partners) - set(batches._draw_rows(index)))
        batches.on_epoch_end()
    # Of 11 partners in an epoch, 2 are expected in their clip's own batch of 2 or 3.
    assert elsewhere > 5 * 6


def test_a_partner_has_a_crop_of_its_own():
    clips = clips_of([1], targets=np.eye(N_CLIPS, dtype=np.float32))
    batches = training_batches(augmentation=PLAIN, lengths=[3])
    batches._clips = replace(clips, rows=np.array([int(clips.mels.lengths.argmax())] * 2))
    whole = clips.mels[batches._clips.rows[0]]
    smallest, largest = clips.mel_statistics["minimum"], clips.mel_statistics["maximum"]
    whole = (whole - smallest) / (largest - smallest)
    crops = {whole[start : start + 3].T.round(5).tobytes() for start in range(len(whole) - 2)}
    mixed = [batches[index][0][0][0, ..., 0] for index in (0, 1)]
    # A mixture of two different crops of the clip is none of its crops.
    assert not {crop.round(5).tobytes() for crop in mixed} & crops


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"shift": 0.6}, lambda crop: (crop[:, 0] == crop[:, 1]).all()),
        ({"flip": 1}, lambda crop: (np.diff(crop) < 0).all()),
        (
            {"erase": {"probability": 1, "area": (0.1, 0.4), "aspect": 0.3}},
            lambda crop: len(np.unique(crop)) < len(np.unique(crop[0])) * N_MELS,
        ),
        ({"roll": 1}, lambda crop: (np.diff(crop[0]) < 0).sum() == 1),
        ({"gain": 0.2}, lambda crop: crop.max() > 1 or crop.min() < 0),
        ({"time_mask": 0.5}, lambda crop: (crop == 0).all(axis=0).any()),
        ({"frequency_mask": 0.5}, lambda crop: (crop == 0).all(axis=1).any()),
    ],
    ids=["shift", "flip", "erase", "roll", "gain", "time_mask", "frequency_mask"],
)
def test_each_augmentation_changes_the_crops_and_only_if_it_is_on(changes, differs):
    clips = clips_of(range(N_CLIPS), targets=np.eye(N_CLIPS, dtype=np.float32))
    # Every value is its own: they rise by band and, within a band, by frame.
    n = len(clips.mels.values)
    values = np.arange(n * N_MELS, dtype=np.float32).reshape(N_MELS, n).T.copy()
    statistics = {**clips.mel_statistics, "minimum": 0.0, "maximum": float(values.max())}
    clips = replace(clips, mels=RaggedArray(values, clips.mels.offsets), mel_statistics=statistics)
    long = np.flatnonzero(clips.mels.lengths >= 6)
    changed = Augmentation.model_validate({**PLAIN.model_dump(), **changes})
    for settings in (PLAIN, changed):
        batches = training_batches(augmentation=settings, mixup_alpha=0, lengths=[6])
        batches._clips = replace(clips, rows=long)
        crops = [crop for i in range(len(batches)) for crop in batches[i][0][0][..., 0]]
        assert any(map(differs, crops)) == (settings is changed)


RAMP = np.linspace(0, 1, 20, dtype=np.float32)
RAMPS = np.tile(RAMP, (N_MELS, 1))


def ramp_crops(**augmentation):
    """Return the crops (n, m, 20) in both batches of ten clips that are all the same ramp.

    All of its frames are in a crop. The ramp rises from 0 to 1, which are −80 and 20 dB.
    """
    clips = clips_of(range(10), targets=np.eye(N_CLIPS, dtype=np.float32))
    values = np.tile(100 * RAMP[:, None] - 80, (N_CLIPS, N_MELS))
    mels = RaggedArray(values, np.arange(0, 20 * N_CLIPS + 1, 20))
    statistics = {**clips.mel_statistics, "minimum": -80.0, "maximum": 20.0}
    batches = training_batches(
        range(10),
        batch_size=5,
        lengths=[20],
        mixup_alpha=0,
        augmentation=Augmentation.model_validate({**PLAIN.model_dump(), **augmentation}),
    )
    batches._clips = replace(clips, mels=mels, mel_statistics=statistics)
    return [batches[index][0][0][..., 0] for index in (0, 1)]


@pytest.mark.parametrize(
    "changes",
    [{"shift": 0.6}, {"roll": 1}, {"gain": 0.2}, {"time_mask": 0.5}, {"frequency_mask": 0.5}],
)
def test_every_clip_of_every_batch_is_changed_by_itself(changes):
    first, second = ramp_crops(**changes)
    assert len({crop.tobytes() for crop in first}) > 2
    assert not np.array_equal(first, second)


def test_a_part_of_the_clips_of_every_batch_is_flipped_or_rolled():
    rising = [np.diff(crops)[:, 0, 0] > 0 for crops in ramp_crops(flip=0.5)]
    whole = [crops[:, 0].argmin(axis=1) == 0 for crops in ramp_crops(roll=0.5)]
    assert all(any(batch) and not all(batch) for batch in (*rising, *whole))


def test_a_roll_keeps_every_frame_and_their_order_around_the_end():
    for crop in np.concatenate(ramp_crops(roll=1)):
        first = int(crop[0].argmin())
        np.testing.assert_allclose(
            np.roll(crop, -first, axis=1), np.tile(RAMP, (N_MELS, 1)), atol=1e-6
        )


def test_a_gain_shifts_all_values_of_a_crop_by_no_more_than_its_limit():
    gains = []
    for crop in np.concatenate(ramp_crops(gain=0.25)):
        gain = crop - RAMP
        assert np.ptp(gain) < 1e-5
        gains.append(gain.mean())
    assert max(map(abs, gains)) <= 0.25
    assert min(gains) < -0.1
    assert max(gains) > 0.1


def test_masks_have_the_lowest_value_and_leave_the_rest_as_it_is():
    for changes, axis in (({"time_mask": 0.5}, 0), ({"frequency_mask": 0.5}, 1)):
        sizes = []
        for crop in np.concatenate(ramp_crops(**changes)):
            masked = (crop == 0) & (RAMPS != 0)
            whole = masked.any(axis=axis)
            np.testing.assert_allclose(
                crop[~masked], np.tile(RAMP, (N_MELS, 1))[~masked], atol=1e-6
            )
            sizes.append(whole.sum())
        assert max(sizes) <= crop.shape[1 - axis] * 0.5
        assert len(set(sizes)) > 1


def test_erasing_sets_a_part_of_a_crop_to_one_value_between_the_lowest_and_the_highest():
    erased_values = []
    for crops in ramp_crops(erase={"probability": 1, "area": (0.1, 0.3), "aspect": 0.3}):
        for crop in crops:
            erased = np.abs(crop - RAMP) > 1e-5
            assert 0.05 < erased.mean() < 0.45
            (value,) = np.unique(crop[erased].round(6))
            erased_values.append(value)
    assert min(erased_values) >= 0
    assert max(erased_values) <= 1
    assert np.ptp(erased_values) > 0.8


def test_the_crop_of_a_clip_differs_from_epoch_to_epoch():
    longest = int(clips_of([0]).mels.lengths.argmax())
    batches = training_batches([longest], augmentation=PLAIN, mixup_alpha=0, lengths=[5])
    crops = set()
    for _ in range(12):
        crops.add(batches[0][0][0].tobytes())
        batches.on_epoch_end()
    assert len(crops) > 4


def test_a_batch_does_not_depend_on_earlier_requests():
    first, second = training_batches(), training_batches()
    for index in (3, 0, 3, 1):
        second[index]
    for index in range(len(first)):
        assert_same_batch(first[index], second[index])
    first.on_epoch_end()
    second.on_epoch_end()
    assert_same_batch(second[2], first[2])


def test_epochs_and_seeds_differ():
    batches, other = training_batches(lengths=[9]), training_batches(seed=2)
    first = batches[0]
    batches.on_epoch_end()
    assert batches.epoch == 1
    assert not np.array_equal(first[0][0], batches[0][0][0])
    assert not np.array_equal(first[1], other[0][1])


def test_a_batch_without_augmentation_has_crops_of_its_clips():
    batches = training_batches(augmentation=PLAIN, mixup_alpha=0, lengths=[3])
    clips = clips_of(range(N_CLIPS))
    smallest, largest = clips.mel_statistics["minimum"], clips.mel_statistics["maximum"]
    (mel, pca), _ = batches[0]
    for crop, row in zip(mel[..., 0].transpose(0, 2, 1), pca[:, 0].astype(int), strict=True):
        whole = (clips.mels[row] - smallest) / (largest - smallest)
        starts = range(len(whole) - 2)
        assert any(np.allclose(crop, whole[start : start + 3], atol=1e-6) for start in starts)


def test_batches_do_not_change_the_clips():
    batches = training_batches()
    before = batches._clips.mels.values.copy()
    for index in range(len(batches)):
        batches[index]
    np.testing.assert_array_equal(batches._clips.mels.values, before)


# Crops


def crop_batches_of(clips, *, lengths=(5, 18, 30), seed=1, **changes):
    """Make batches of crops from the shortest to the longest of these lengths, at equal steps."""
    settings = {"n_lengths": len(lengths), "crops_per_length": 2, "subset": "all", "batch_size": 2}
    statistics = {**clips.mel_statistics, "shortest": lengths[0], "longest": lengths[-1]}
    settings = TestTimeCrops(**{**settings, **changes})
    batches = CropBatches(replace(clips, mel_statistics=statistics), settings, seed=(seed,))
    assert {*batches.lengths} == {*lengths}
    return batches


def crops_by_name(clips, **changes):
    """Return every crop of every clip, in order, by the clip's name."""
    batches = crop_batches_of(clips, **changes)
    seen = {}
    for index in range(len(batches)):
        (inputs,) = batches[index]
        for row, mel in zip(batches.rows(index), inputs[0], strict=True):
            seen.setdefault(clips.fnames[row], []).append(mel)
    return seen


def test_every_clip_has_all_crops_of_every_length():
    seen = crops_by_name(clips_of([0, 3, 4, 8, 10]))
    assert sorted(seen) == ["0.wav", "10.wav", "3.wav", "4.wav", "8.wav"]
    for crops in seen.values():
        assert sorted(crop.shape[1] for crop in crops) == [5, 5, 18, 18, 30, 30]
        assert all(crop.min() >= 0 and crop.max() <= 1 for crop in crops)


@pytest.mark.parametrize("lengths", [[10, 10, 11], [5, 6, 6], [5, 5, 5, 6, 6, 6], [5, 7]])
def test_the_first_two_batches_of_crops_differ_in_length_if_any_do(lengths):
    batches = crop_batches_of(clips_of([0, 3]), lengths=lengths)
    first, second = (batches[index][0][0].shape[2] for index in (0, 1))
    assert first != second


def test_crops_of_a_clip_depend_on_no_other_clip_and_on_no_order():
    alone = crops_by_name(clips_of([3]))
    backwards = clips_of([10, 7, 0], order=range(N_CLIPS)[::-1])
    together = crops_by_name(backwards, batch_size=5)
    # Few clips have all crops of a length in one batch, many have one after the other.
    ours, theirs = (
        sorted(crop.tobytes() for crop in found["3.wav"]) for found in (alone, together)
    )
    assert ours == theirs


def test_few_clips_have_all_crops_of_a_length_in_one_batch():
    few, many = (
        crop_batches_of(clips_of(range(n)), crops_per_length=3, batch_size=6) for n in (2, 3)
    )
    assert len(few) == len(few.lengths) // 3
    assert few.rows(0).tolist() == [0, 1] * 3
    assert len(many) == len(many.lengths)


def test_crops_of_one_length_differ_and_so_do_seeds():
    clips = clips_of([int(clips_of([0]).mels.lengths.argmax())])
    (crops,) = crops_by_name(clips, lengths=[5], crops_per_length=8).values()
    assert len({crop.tobytes() for crop in crops}) > 3
    (others,) = crops_by_name(clips, lengths=[5], crops_per_length=8, seed=2).values()
    assert [crop.tobytes() for crop in crops] != [crop.tobytes() for crop in others]


def test_batches_of_crops_have_the_components_and_targets_of_their_clips():
    targets = np.eye(N_CLIPS, dtype=np.float32)
    batches = crop_batches_of(clips_of([3, 9, 4], targets=targets))
    for index in range(len(batches)):
        (_, pca), labels = batches[index]
        np.testing.assert_array_equal(pca[:, 0], batches.rows(index))
        np.testing.assert_array_equal(labels, targets[batches.rows(index)])


def test_only_levels_beyond_those_of_the_training_clips_become_0_or_1():
    statistics = {"minimum": -80.0, "maximum": 20.0, "shortest": 150, "longest": 150}
    levels = np.linspace(-300, 300, 600, dtype=np.float32).reshape(-1, N_MELS)
    clips = Clips(np.array([0]), ["a"], RaggedArray(levels, np.array([0, 150])), None, statistics)
    settings = TestTimeCrops(n_lengths=1, crops_per_length=1, subset="all", batch_size=1)
    ((mel,),) = CropBatches(clips, settings, seed=(1,))[0]
    found = mel[0, ..., 0].T
    inside = (levels >= -80) & (levels <= 20)
    np.testing.assert_array_equal(found[inside], ((levels + 80) / 100)[inside])
    np.testing.assert_array_equal(found[~inside], (levels > 0)[~inside])


def test_levels_of_a_fixed_range_are_not_bounded():
    statistics = {"minimum": -4.5, "maximum": 0.5, "bounded": False, "shortest": 9, "longest": 9}
    levels = np.linspace(-11.5, 10, 9 * N_MELS, dtype=np.float32).reshape(9, N_MELS)
    clips = Clips(np.array([0]), ["a"], RaggedArray(levels, np.array([0, 9])), None, statistics)
    settings = TestTimeCrops(n_lengths=1, crops_per_length=1, subset="all", batch_size=1)
    ((mel,),) = CropBatches(clips, settings, seed=(1,))[0]
    np.testing.assert_allclose(mel[0, ..., 0].T, (levels + 4.5) / 5, rtol=1e-5, atol=1e-6)


def test_the_thinned_subset_is_one_crop_of_every_other_length():
    lengths = [5, 10, 15, 20, 25, 30]
    every = crop_batches_of(clips_of([4, 1, 2]), lengths=lengths, crops_per_length=5)
    assert sorted(every.lengths) == sorted(lengths * 5)
    settings = TestTimeCrops(n_lengths=6, crops_per_length=5, subset="thinned", batch_size=64)
    assert sorted(CropBatches(clips_of([4, 1, 2]), settings, seed=(1,)).lengths) == [10, 20, 30]


@pytest.mark.parametrize("subset", ["all", "thinned"])
def test_predictions_per_clip_are_the_crops_of_all_folds(subset):
    crops = TestTimeCrops(n_lengths=6, crops_per_length=5, subset=subset, batch_size=64)
    lengths = CropBatches(clips_of([4, 1, 2]), crops, seed=(1,)).lengths
    assert predictions_per_clip(crops, n_folds=3) == 3 * len(lengths)


def test_no_clips_have_no_crops():
    batches = crop_batches_of(clips_of([]))
    assert (len(batches), batches.n_crops) == (0, 0)
