"""The nodes of two folds, with a tiny backbone and without training.

Every clip has a class and components of its own, so the batches say which clips they are of. In
place of the training, the network remembers the classes that it saw: it predicts those alone.
"""

from unittest.mock import create_autospec

import keras
import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.modelling import training
from fsat_kedro.modelling.encoders import ENCODER
from fsat_kedro.parameters import Folds, NetworkSettings
from fsat_kedro.pipelines.training import create_pipeline, nodes

N_CLIPS, N_MELS = 9, 32
FOLDS = np.array([1, 2, 2, 1, 0, 1, 2, 1, 1])
USABLE = np.flatnonzero(FOLDS)
SETTINGS = NetworkSettings(
    model={
        "weights": None,
        "width": 0.35,
        "momentum": {"backbone": 0.9, "others": 0.9},
        "precision": "float32",
        "encoder": "mobilenet_v2",
        "frozen_stages": 0,
        "freeze_normalisation": False,
        "summary_features": True,
        "head": "mlp",
    },
    training={
        "batch_size": 2,
        "n_lengths": None,
        "augmentation": {
            "shift": 0.1,
            "flip": 0.5,
            "erase": {"probability": 0.5, "area": (0.02, 0.2), "aspect": 0.3},
            **dict.fromkeys(("roll", "gain", "time_mask", "frequency_mask"), 0),
        },
        "selection": "best",
        "validate_every": 1,
        "mixup_alpha": {"mel": 0.0, "mel_pca": 1.0},
        "label_noise": {"rounds": 0, "robustness": 0.0, "unknown": "verified"},
        "weight_decay": 0.0,
        "probe": False,
        "probe_only": False,
        "probe_fraction": 0.0,
        "phases": {
            "cyclic": {"epochs": 1, "half_cycle": 1, "minimum_rate": 1e-4, "maximum_rate": 1e-3},
            "low": {"epochs": 0, "rate": 1e-5},
            "high": {"epochs": 0, "rate": 1e-4},
            "cosine": {"epochs": 0, "warm_up": 1, "rate": 1e-3},
        },
        "plateau": {"min_delta": 0.0, "patience": 3, "factor": 0.1},
        "early_stopping": {"min_delta": 0.0, "patience": 10},
    },
    test_time_crops={
        "n_lengths": 3,
        "crops_per_length": 2,
        "subset": "thinned",
        "batch_size": 4,
    },
    inference={"runtime": "keras"},
    seed=7,
    cache_dir="cache",
)
NOISE = SETTINGS.training.label_noise
STATISTICS = {"minimum": 0.0, "maximum": 1.0, "shortest": 32, "longest": 40}
VALUES = np.random.default_rng(0).random((60 * N_CLIPS, N_MELS), dtype=np.float32)
MELS = RaggedArray(VALUES, np.arange(0, 60 * N_CLIPS + 1, 60))
COMPONENTS = np.stack([np.arange(N_CLIPS), np.ones(N_CLIPS)], axis=1)
CLIPS = pd.DataFrame(
    {
        "fname": [f"{clip}.wav" for clip in range(N_CLIPS)],
        "label": pd.Series(list("hgfedcbai"), dtype="string"),
        "status": np.where(FOLDS > 0, "ok", "rejected"),
        "verified": pd.array([None] * N_CLIPS, dtype="boolean"),
        "fold": pd.Series(FOLDS, dtype="Int64"),
    }
)


def split_of(fold):
    folds = Folds(source="given", n_folds=2)
    splits = nodes.split_folds(FOLDS, CLIPS, nodes.list_classes(CLIPS), STATISTICS, folds, NOISE)
    return splits[fold - 1]


CLASS_OF = split_of(1)["targets"]


def classes_of(part, fold):
    """Return the classes of the clips that a fold trains on or holds out."""
    held_out = np.equal(FOLDS, fold)
    return sorted(CLASS_OF[held_out if part == "validation" else ~held_out & (FOLDS > 0)])


TRAIN_STAGE = training.train_stage


class Stage:
    """What the training of a stage gets, and does instead of a training."""

    def __init__(self, network, batches, validation, options):
        self.network, self.batches, self.validation = network, batches, validation
        self.options = options
        self.initial = {layer.name: layer.get_weights() for layer in network.layers}
        self.drawn = [batches[index] for index in range(len(batches))]
        for _ in range(9):
            batches.on_epoch_end()
            self.drawn += [batches[index] for index in range(len(batches))]
        self.held_out = [validation[index] for index in range(len(validation))]
        self.history = pd.DataFrame({"name": [options["name"]]})

    def seen(self):
        """Return the mass of each class in the targets."""
        return sum(targets.sum(axis=0) for _, targets in self.drawn)

    def lengths(self):
        return [inputs[0].shape[2] for inputs, _ in self.drawn]

    def remember(self):
        kernel, bias = self.network.get_layer("classes").get_weights()
        seen = self.seen().reshape(-1, len(bias)).sum(axis=0)  # Of verified labels and others.
        self.network.get_layer("classes").set_weights([kernel / 10, np.log(1e-9 + seen)])
        return self.history


@pytest.fixture(scope="module", autouse=True)
def build_backbone(tiny_backbone):
    with tiny_backbone() as build:
        yield build


@pytest.fixture(scope="module")
def trained():
    """Replace the training; return a list of the stages that are trained."""
    stages = []

    def remember(*parts, **options):
        stages.append(Stage(*parts, options))
        return stages[-1].remember()

    with pytest.MonkeyPatch.context() as patch:
        replacement = create_autospec(training.train_stage, side_effect=remember)
        patch.setattr(training, "train_stage", replacement)
        yield stages


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def outputs(trained, folder):
    """Run the pipeline up to the out-of-fold predictions of two folds."""
    parts = {
        "train_clips": CLIPS,
        "train_mels": MELS,
        "train_components": COMPONENTS,
        "mel_statistics": STATISTICS,
        "params:folds": Folds(source="given", n_folds=2),
        "params:seed": 7,
        "params:training.label_noise": NOISE,
        "params:network_settings": SETTINGS,
        "callbacks": ["callback"],
    }
    catalog = DataCatalog({name: MemoryDataset(part) for name, part in parts.items()})
    for name in (f"{stage}_{{}}_{fold}" for fold in (1, 2) for stage in ("mel", "mel_pca")):
        catalog[name.format("checkpoint")] = MemoryDataset(name.format("checkpoint"))
        path = str(folder / name.format("weights")) + ".weights.h5"
        catalog[name.format("weights")] = KerasWeightsDataset(filepath=path)
    wanted = create_pipeline(2, ("mel", "mel_pca")).to_outputs(
        "oof_probabilities", "training_history"
    )
    outputs = SequentialRunner().run(wanted, catalog)
    return {name: output.load() for name, output in outputs.items()}


@pytest.fixture(scope="module")
def stages(trained, outputs):
    """Return the stages that the pipeline trained, by stage and fold."""
    return {(s.network.name, int(s.options["name"].split()[0][-1])): s for s in trained[:4]}


def test_every_stage_of_every_fold_is_trained_once(trained, stages):
    assert {*stages} == {("mel", 1), ("mel", 2), ("mel_pca", 1), ("mel_pca", 2)}


def test_a_fold_trains_on_its_training_clips_alone(stages):
    for (_, fold), stage in stages.items():
        assert np.flatnonzero(stage.seen()).tolist() == classes_of("train", fold)


def test_a_fold_validates_on_one_crop_of_each_length_of_its_held_out_clips(stages):
    for (_, fold), stage in stages.items():
        lengths = {}
        for inputs, targets in stage.held_out:
            for label in targets.argmax(axis=1):
                lengths.setdefault(label, []).append(inputs[0].shape[2])
        assert sorted(lengths) == classes_of("validation", fold)
        assert all(sorted(of_clip) == [32, 36, 40] for of_clip in lengths.values())


def test_every_clip_is_predicted_by_the_network_of_its_fold_which_did_not_see_it(outputs):
    probabilities = outputs["oof_probabilities"]
    for clip in USABLE:
        predicted = np.flatnonzero(probabilities[clip] > 1e-3)
        assert CLASS_OF[clip] not in predicted
        assert predicted.tolist() == classes_of("train", FOLDS[clip])
    assert np.isnan(probabilities[FOLDS == 0]).all()


def test_out_of_fold_predictions_are_of_held_out_clips_with_crops_of_the_fold(outputs, folder):
    path, split = folder / "mel_pca_weights_2.weights.h5", split_of(2)
    ours, others = (
        nodes.predict_out_of_fold(path, {**split, "fold": fold}, SETTINGS, MELS, COMPONENTS)
        for fold in (2, 3)
    )
    for logs in (ours, others):
        assert logs.shape == (N_CLIPS, len(USABLE))
        assert np.isfinite(logs[FOLDS == 2]).all()
        assert np.isnan(logs[FOLDS != 2]).all()
    assert not np.array_equal(ours[FOLDS == 2], others[FOLDS == 2])


def test_the_history_of_a_stage_is_that_of_its_training(outputs):
    history = outputs["training_history"]
    assert history["fold"].tolist() == [1, 1, 2, 2]
    assert history["stage"].tolist() == ["mel", "mel_pca"] * 2
    names = ["fold_1 mel", "fold_1 mel_pca", "fold_2 mel", "fold_2 mel_pca"]
    assert history["name"].tolist() == names


def test_a_stage_has_its_settings_checkpoint_and_callbacks(stages):
    for (name, fold), stage in stages.items():
        assert stage.options == {
            "settings": SETTINGS.training,
            "name": f"fold_{fold} {name}",
            "checkpoint": f"{name}_checkpoint_{fold}",
            "callbacks": ["callback"],
        }


def test_stage_mel_gets_spectrograms_alone_and_stage_mel_pca_components_too(stages):
    for (name, _), stage in stages.items():
        with_components = name == "mel_pca"
        assert [x.name for x in stage.network.inputs] == ["mel", "pca"][: 1 + with_components]
        for inputs, targets in stage.drawn + stage.held_out:
            assert len(inputs) == 1 + with_components
            if with_components:
                # Mixed like the classes, which are in the order of the labels.
                own = targets @ COMPONENTS[USABLE][np.argsort(CLASS_OF[USABLE])]
                np.testing.assert_allclose(inputs[1], own, rtol=1e-5)


def test_crops_have_all_lengths_and_the_mixup_of_their_stage(stages):
    for (name, _), stage in stages.items():
        assert {*stage.lengths()} <= {*range(32, 41)}
        assert len({*stage.lengths()}) > 5
        is_mixed = any((targets.max(axis=1) < 0.9).any() for _, targets in stage.drawn)
        assert is_mixed == (name == "mel_pca")


def test_stage_mel_pca_starts_from_the_encoder_of_stage_mel_and_a_new_head(stages):
    for fold in (1, 2):
        mel, initial = stages["mel", fold].network, stages["mel_pca", fold].initial
        theirs = mel.get_layer(ENCODER).get_weights()
        for one, other in zip(initial[ENCODER], theirs, strict=True):
            np.testing.assert_array_equal(one, other)
        old_head = mel.get_layer("dense_384").get_weights()[0]
        assert not np.array_equal(initial["dense_384"][0], old_head)


def test_folds_and_stages_have_seeds_of_their_own(stages):
    assert len({tuple(stage.lengths()) for stage in stages.values()}) == 4
    assert len({stage.initial["dense_384"][0].tobytes() for stage in stages.values()}) == 4
    for fold in (1, 2):
        crops = [stages[name, fold].held_out[0][0][0] for name in ("mel", "mel_pca")]
        assert not np.array_equal(*crops)


def test_a_stage_is_drawn_the_same_after_any_other_and_by_the_seed_that_is_set(trained, stages):
    expected = stages["mel", 1]
    for seed in (7, 8):
        settings = SETTINGS.model_copy(update={"seed": seed})
        network, _ = nodes.train_mel(split_of(1), MELS, settings, None, [])
        ours = trained.pop()
        assert ours.network is network
        assert (ours.lengths() == expected.lengths()) == (seed == 7)
        kernels = (stage.initial["dense_384"][0] for stage in (ours, expected))
        assert np.array_equal(*kernels) == (seed == 7)


def test_stage_mel_starts_from_the_backbone_and_has_the_crop_lengths_that_are_set(
    trained, build_backbone, tmp_path
):
    keras.utils.set_random_seed(99)
    backbone = build_backbone(SETTINGS.model, None)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    model = SETTINGS.model.model_copy(update={"weights": str(tmp_path / "backbone.weights.h5")})
    two_lengths = SETTINGS.training.model_copy(update={"n_lengths": 2})
    settings = SETTINGS.model_copy(update={"model": model, "training": two_lengths})
    network, _ = nodes.train_mel(split_of(1), MELS, settings, None, [])
    ours = network.get_layer(ENCODER).get_layer("tiny_backbone")
    for one, other in zip(ours.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {*trained.pop().lengths()} == {32, 40}


# A probe

LINEAR = SETTINGS.model_copy(update={"model": SETTINGS.model.model_copy(update={"head": "linear"})})


@pytest.fixture(scope="module")
def embeddings(build_backbone):
    return nodes.embed_clips(MELS, CLIPS, STATISTICS, LINEAR)


def test_every_usable_clip_has_an_embedding(embeddings):
    assert embeddings.dtype == np.float32
    assert np.flatnonzero(np.isfinite(embeddings).all(axis=1)).tolist() == USABLE.tolist()
    assert np.isnan(embeddings[FOLDS == 0]).all()


def test_the_embeddings_are_of_the_encoder_that_every_fold_starts_from(trained, embeddings):
    for fold in (1, 2):
        network, _ = nodes.train_mel(split_of(fold), MELS, LINEAR, None, [], embeddings)
        trained.pop()
        for clip in USABLE:
            features = np.asarray(network.get_layer(ENCODER)(MELS[clip].T[None, ..., None]))
            np.testing.assert_allclose(embeddings[clip], features.mean(axis=(0, 1, 2)), rtol=1e-4)


def test_a_fold_starts_from_the_probe_of_its_training_clips_alone(trained, embeddings):
    split = split_of(1)
    heads = []
    for changed in ("validation", "train"):
        others = embeddings.copy()
        others[split[changed]] += np.arange(len(split[changed]))[:, None]
        for each in (embeddings, others):
            nodes.train_mel(split, MELS, LINEAR, None, [], each)
            heads.append(trained.pop().initial["classes"][0])
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[2], heads[3])


def test_the_probe_counts_in_the_weights_of_the_trained_network(trained, embeddings):
    split, heads = split_of(1), {}
    for fraction in (0, 0.25, 1):
        probed = LINEAR.training.model_copy(update={"probe_fraction": fraction})
        settings = LINEAR.model_copy(update={"training": probed})
        network, _ = nodes.train_mel(split, MELS, settings, None, [], embeddings)
        start = trained.pop().initial["classes"][1]
        heads[fraction] = network.get_layer("classes").get_weights()[1]
    assert not np.allclose(heads[0], heads[1])
    np.testing.assert_allclose(heads[1], start)
    np.testing.assert_allclose(heads[0.25], 0.25 * heads[1] + 0.75 * heads[0], rtol=1e-5)


# Labels that nobody verified


def noisy_settings(**changes):
    noise = NOISE.model_copy(update=changes)
    training = SETTINGS.training.model_copy(update={"label_noise": noise})
    return LINEAR.model_copy(update={"training": training})


@pytest.fixture
def noisy_split():
    """Return the split of fold 1, half of whose labels are verified."""
    return {**split_of(1), "verified": np.arange(N_CLIPS) % 2 == 0}


@pytest.mark.parametrize("features", ["embeddings", "components"])
def test_trust_is_of_the_clips_that_a_fold_trains_on(features, noisy_split):
    rng = np.random.default_rng(0)
    classes = np.arange(N_CLIPS) % 2
    split = {**noisy_split, "targets": classes, "train": np.arange(6), "validation": [7, 8]}
    values = 3 * np.eye(2)[classes] + rng.normal(size=(N_CLIPS, 2))
    settings = noisy_settings(rounds=1)
    trust = nodes.verify_labels(split, settings, **{features: values})
    assert (trust[[0, 2, 4]] == 1).all()
    assert ((trust[[1, 3, 5]] > 0) & (trust[[1, 3, 5]] < 1)).all()
    assert np.isnan(trust[6:]).all()
    # Neither features nor labels of the held-out clips have a part in it.
    values[6:], classes[6:] = 99, 0
    again = nodes.verify_labels(split, settings, **{features: values})
    np.testing.assert_array_equal(trust, again)


def test_a_clip_counts_as_much_as_its_label_is_trusted(trained, embeddings, noisy_split):
    rows = noisy_split["train"]
    trust = np.full(N_CLIPS, np.nan, np.float32)
    trust[rows] = np.array([1, 0.5, 0.01, 0.25])[np.arange(len(rows)) % 4]
    settings = noisy_settings(rounds=1)
    nodes.train_mel(noisy_split, MELS, settings, None, [], embeddings, trust)
    stage = trained.pop()
    seen = stage.seen() / 10  # Epochs.
    counts = np.zeros(len(CLASS_OF))
    counts[CLASS_OF[rows]] = np.where(trust[rows] > 0.05, trust[rows], 0)
    np.testing.assert_allclose(seen[CLASS_OF[rows]], counts[CLASS_OF[rows]], rtol=1e-5)
    # So it does in the probe.
    trained.clear()
    nodes.train_mel(noisy_split, MELS, settings, None, [], embeddings, np.ones(N_CLIPS))
    plain = trained.pop()
    nodes.train_mel(noisy_split, MELS, settings, None, [], embeddings, np.full(N_CLIPS, 0.5))
    halved = trained.pop()
    assert not np.allclose(halved.initial["classes"][0], plain.initial["classes"][0])


def test_epochs_are_judged_by_verified_clips_if_labels_may_be_wrong(trained, noisy_split):
    for settings, kept in ((noisy_settings(rounds=1), True), (LINEAR, False)):
        nodes.train_mel(noisy_split, MELS, settings, None, [])
        stage = trained.pop()
        held_out = noisy_split["validation"]
        expected = held_out[noisy_split["verified"][held_out]] if kept else held_out
        judged = {label for _, targets in stage.held_out for label in targets.argmax(axis=1)}
        assert judged == {*CLASS_OF[expected]}
    none = {**noisy_split, "verified": np.zeros(N_CLIPS, bool)}
    nodes.train_mel(none, MELS, noisy_settings(rounds=1), None, [])
    assert len(trained.pop().held_out) == len(stage.held_out)


def test_targets_of_a_robust_loss_tell_verified_labels_from_others(trained, noisy_split):
    nodes.train_mel(noisy_split, MELS, noisy_settings(robustness=0.7), None, [])
    verified, others = np.split(trained.pop().seen() > 0, 2)
    rows, is_verified = noisy_split["train"], noisy_split["verified"]
    assert {*np.flatnonzero(verified)} == {*CLASS_OF[rows[is_verified[rows]]]}
    assert {*np.flatnonzero(others)} == {*CLASS_OF[rows[~is_verified[rows]]]}


# A probe alone, by the real training

# Silent, loud, and some bands loud; the last class is in one fold alone.
KINDS = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2, 2, 2])
KIND_FOLDS = np.array([1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2])


@pytest.fixture(scope="module")
def probed(tmp_path_factory, build_backbone):
    """Run the pipeline of stage mel with a probe and without phases, up to all predictions."""
    folder = tmp_path_factory.mktemp("probe")
    keras.utils.set_random_seed(5)
    backbone = build_backbone(SETTINGS.model, None)
    backbone.save_weights(folder / "backbone.weights.h5")
    changes = {
        "model": {
            "weights": str(folder / "backbone.weights.h5"),
            "summary_features": False,
            "head": "linear",
        },
        "training": {"probe": True, "probe_only": True},
        "test_time_crops": {"subset": "whole"},
    }
    groups = {name: {**SETTINGS.model_dump()[name], **x} for name, x in changes.items()}
    settings = NetworkSettings(**{**SETTINGS.model_dump(), **groups})
    rng = np.random.default_rng(0)
    # Few features of the tiny backbone say more than how long a clip is.
    lengths = np.full(len(KINDS), 90)
    values = 0.1 * rng.random((lengths.sum(), N_MELS))
    levels = np.array([[0.0, 0.0], [0.8, 0.8], [0.0, 0.8]])[np.repeat(KINDS, lengths)]
    values += levels[:, np.arange(N_MELS) // 4 % 2]
    clips = pd.DataFrame(
        {
            "fname": [f"{clip}.wav" for clip in range(len(KINDS))],
            "label": pd.Series([*map("abc".__getitem__, KINDS)], dtype="string"),
            "status": "ok",
            "verified": pd.array([None] * len(KINDS), dtype="boolean"),
            "fold": pd.Series(KIND_FOLDS, dtype="Int64"),
        }
    )
    parts = {
        "train_clips": clips,
        "train_mels": RaggedArray(values.astype(np.float32), np.cumsum([0, *lengths])),
        "mel_statistics": STATISTICS,
        "params:folds": Folds(source="given", n_folds=2),
        "params:seed": 7,
        "params:training.label_noise": NOISE,
        "params:network_settings": settings,
        "callbacks": [],
        "mel_checkpoint_1": None,
        "mel_checkpoint_2": None,
    }
    catalog = DataCatalog({name: MemoryDataset(part) for name, part in parts.items()})
    for fold in (1, 2):
        path = str(folder / f"fold_{fold}.weights.h5")
        catalog[f"mel_weights_{fold}"] = KerasWeightsDataset(filepath=path)
    wanted = create_pipeline(2, ("mel",), probe=True).to_outputs(
        "oof_probabilities", "training_history"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_stage", TRAIN_STAGE)
        outputs = SequentialRunner().run(wanted, catalog)
    return {name: output.load() for name, output in outputs.items()}


def test_a_probe_tells_held_out_clips_apart_without_any_epoch(probed):
    probabilities, known = probed["oof_probabilities"], KINDS < 2
    assert probabilities[known, :2].argmax(axis=1).tolist() == KINDS[known].tolist()
    history = probed["training_history"]
    assert history[["fold", "stage", "epoch", "phase"]].to_numpy().tolist() == [
        [fold, "mel", 1, "probe"] for fold in (1, 2)
    ]
    # The validation of a stage is of whole clips too.
    right = probabilities.argmax(axis=1) == KINDS
    expected = [right[fold == KIND_FOLDS].mean() for fold in (1, 2)]
    assert history["val_accuracy"].tolist() == pytest.approx(expected)


def test_a_probe_has_not_seen_the_held_out_clips(probed):
    # The third class is only in fold 2, whose network has never heard it.
    unseen = probed["oof_probabilities"][:, 2]
    assert (unseen[KIND_FOLDS == 2] < 1e-8).all()
    assert (unseen[KIND_FOLDS == 1] > 1e-6).all()
