"""Whole clips as batches. Every frame has values that say which frame of which clip it is."""

from collections import Counter

import numpy as np
import pytest

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.modelling import crops
from fsat_kedro.modelling.crop_lengths import predictions_per_clip
from fsat_kedro.modelling.crops import Clips, CropBatches, WholeBatches
from fsat_kedro.parameters import TestTimeCrops

# Some alike, and two that are longer than a piece may be.
LENGTHS = [40, 50, 6001, 40, 70, 3000, 40, 9000]
ROWS = [7, 0, 3, 6, 2, 5, 4]


def clips_of(lengths, rows, **parts):
    """Make clips of two bands: the number of the clip, and that of the frame."""
    values = [
        np.stack([np.full(length, row), np.arange(length)], axis=1)
        for row, length in enumerate(lengths)
    ]
    parts = {"components": None, **parts}
    statistics = {"minimum": 0.0, "maximum": 1.0, "bounded": False}
    return Clips(
        np.array(rows, int),
        [f"{row}.wav" for row in range(len(lengths))],
        RaggedArray(np.concatenate(values).astype(np.float32), np.cumsum([0, *lengths])),
        mel_statistics=statistics,
        **parts,
    )


def pieces_of(batches):
    """Return the row, the fraction and the frames of every piece, in order."""
    pieces = []
    for index in range(len(batches)):
        ((mel,),) = batches[index]
        rows, fractions = batches.rows(index), batches.fractions(index)
        for row, fraction, piece in zip(rows, fractions, mel[..., 0], strict=True):
            assert {*piece[0]} == {row}
            pieces.append((int(row), fraction, piece[1].astype(int).tolist()))
    return pieces


@pytest.fixture(scope="module")
def pieces():
    return pieces_of(WholeBatches(clips_of(LENGTHS, ROWS), batch_size=2))


def test_every_frame_of_every_clip_is_there_once(pieces):
    seen = Counter((row, frame) for row, _, frames in pieces for frame in frames)
    assert seen == Counter((row, frame) for row in ROWS for frame in range(LENGTHS[row]))


def test_only_a_long_clip_is_in_pieces_which_are_equal_and_in_one_piece_each(pieces):
    numbers = Counter(row for row, _, _ in pieces)
    assert numbers == Counter({row: {2: 3, 7: 3}.get(row, 1) for row in ROWS})
    for row, _, frames in pieces:
        assert len(frames) == pytest.approx(LENGTHS[row] / numbers[row], abs=1)
        assert frames == list(range(frames[0], frames[0] + len(frames)))


def test_the_fractions_of_a_clip_are_those_of_its_frames_and_sum_to_1(pieces):
    for row, fraction, frames in pieces:
        assert fraction == len(frames) / LENGTHS[row]
    for row in ROWS:
        assert sum(fraction for other, fraction, _ in pieces if other == row) == pytest.approx(1)


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_a_batch_has_no_more_pieces_than_it_may(batch_size):
    batches = WholeBatches(clips_of(LENGTHS, ROWS), batch_size=batch_size)
    sizes = [len(batches.rows(index)) for index in range(len(batches))]
    assert max(sizes) == min(batch_size, 4)  # 3,000 frames of two clips
    assert sum(sizes) == batches.n_crops == 3 + 3 + 5


@pytest.mark.parametrize(
    ("lengths", "batch_size"),
    [([40] * 5 + [50], 2), ([50, 40, 40], 1), ([6001], 4), ([9, 20, 40], 4), ([9, 20, 9, 40], 1)],
)
def test_the_first_two_batches_differ_in_length_if_any_do(lengths, batch_size):
    batches = WholeBatches(clips_of(lengths, range(len(lengths))), batch_size=batch_size)
    first, second = (batches[index][0][0].shape[2] for index in (0, 1))
    assert first != second


def test_a_clip_that_is_shorter_than_a_column_of_the_encoder_continues_as_its_mirror_image():
    ((row, fraction, frames),) = pieces_of(WholeBatches(clips_of([20], [0]), batch_size=1))
    assert (row, fraction) == (0, 1)
    assert frames == [*range(20), *range(19, 7, -1)]


def test_components_and_targets_are_those_of_the_clips():
    components = np.arange(len(LENGTHS))[:, None] * [1.0, 10.0]
    targets = np.eye(len(LENGTHS), dtype=np.float32)
    clips = clips_of(LENGTHS, ROWS, components=components, targets=targets)
    batches = WholeBatches(clips, batch_size=2)
    for index in range(len(batches)):
        (mel, pca), labels = batches[index]
        rows = batches.rows(index)
        np.testing.assert_array_equal(mel[:, 0, 0, 0], rows)
        np.testing.assert_array_equal(pca, components[rows])
        np.testing.assert_array_equal(labels, targets[rows])


def test_no_clips_have_no_batches():
    batches = WholeBatches(clips_of(LENGTHS, []), batch_size=2)
    assert (len(batches), batches.n_crops) == (0, 0)


@pytest.mark.parametrize(
    ("subset", "kind"),
    [("whole", WholeBatches), ("all", CropBatches), ("thinned", CropBatches)],
)
def test_a_fold_predicts_whole_clips_or_crops(subset, kind):
    settings = TestTimeCrops(n_lengths=2, crops_per_length=3, subset=subset, batch_size=4)
    clips = clips_of([40, 50], [0, 1])
    clips.mel_statistics.update(shortest=32, longest=40)
    batches = crops.test_time_batches(clips, settings, seed=(1,))
    assert type(batches) is kind
    assert batches.n_crops == {"whole": 2, "all": 12, "thinned": 2}[subset]
    assert max(len(batches.rows(index)) for index in range(len(batches))) <= 4
    per_clip = predictions_per_clip(settings, n_folds=5)
    assert per_clip == 5 * batches.n_crops / 2


def test_the_fractions_of_crops_are_equal_and_sum_to_1():
    settings = TestTimeCrops(n_lengths=2, crops_per_length=3, subset="all", batch_size=2)
    clips = clips_of([40, 50, 60], [2, 0])
    clips.mel_statistics.update(shortest=32, longest=40)
    batches = CropBatches(clips, settings, seed=(1,))
    sums = np.zeros(3)
    for index in range(len(batches)):
        assert set(batches.fractions(index)) == {1 / 6}
        np.add.at(sums, batches.rows(index), batches.fractions(index))
    np.testing.assert_allclose(sums, [1, 0, 1])
