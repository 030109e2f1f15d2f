import copy
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader
from pydantic import ValidationError

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.modelling import crop_lengths
from fsat_kedro.parameters import RENAMED, Model, NetworkSettings, Parameters
from fsat_kedro.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[1] / "conf"
MODEL = {
    "encoder": "mobilenet_v2",
    "width": 1,
    "momentum": {"backbone": 0.9, "others": 0.9},
    "frozen_stages": 0,
    "freeze_normalisation": False,
    "summary_features": True,
    "head": "mlp",
    "precision": "float32",
}
ENVIRONMENTS = sorted(path.name for path in CONF.iterdir() if path.is_dir())


def configured(env):
    loader = OmegaConfigLoader(conf_source=str(CONF), env=env, **CONFIG_LOADER_ARGS)
    return loader["parameters"]


@pytest.fixture(scope="module")
def base():
    return configured("base")


def changed(parameters, name, value):
    """Return a copy of nested parameters with the one of this dotted name set."""
    parameters = copy.deepcopy(parameters)
    *groups, key = name.split(".")
    group = parameters
    for part in groups:
        group = group[part]
    group[key] = value
    return parameters


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_is_valid(env):
    Parameters.model_validate(configured(env))


def test_base_has_the_numbers_of_the_published_solution():
    recipe = Parameters.model_validate(configured("base"))
    assert SAMPLE_RATE == 44_100
    assert recipe.trim.top_db == 60  # librosa's default
    assert recipe.log_mel.model_dump() == {
        "kind": "librosa",
        "sample_rate": 22_050,
        "n_fft": 1764,
        "hop_length": 220,
        "n_mels": 64,
    }
    assert recipe.pca.n_components == 350
    assert recipe.folds.model_dump() == {"source": "auto", "n_folds": 10}
    assert recipe.seed == 20180629
    assert recipe.crop_lengths.model_dump() == {"percentiles": (25, 75), "seconds": None}
    assert recipe.model.model_dump() == {
        "encoder": "mobilenet_v2",
        "weights": "imagenet",
        "width": 1,
        "momentum": {"backbone": 0.999, "others": 0.99},
        "frozen_stages": 0,
        "freeze_normalisation": False,
        "pooled_stages": (),
        "summary_features": True,
        "head": "mlp",
        "precision": "float32",
    }
    training = recipe.training
    assert training.batch_size == 64
    assert training.n_lengths is None
    assert (training.selection, training.validate_every) == ("best", 1)
    assert training.augmentation.model_dump() == {
        "shift": 0.6,
        "flip": 0.5,
        "erase": {"probability": 0.5, "area": (0.02, 0.4), "aspect": 0.3},
        **dict.fromkeys(("roll", "gain", "time_mask", "frequency_mask"), 0),
    }
    assert training.mixup_alpha.model_dump() == {"mel": 1, "mel_pca": 0.5}
    assert (training.weight_decay, training.probe, training.probe_only) == (0, False, False)
    assert training.probe_fraction == 0
    assert training.phases.model_dump() == {
        "cyclic": {
            "epochs": 100,
            "half_cycle": 1,
            "minimum_rate": 1e-4,
            "maximum_rate": 1e-3,
        },
        "low": {"epochs": 100, "rate": 1e-5},
        "high": {"epochs": 100, "rate": 1e-4},
        "cosine": {"epochs": 0, "warm_up": 1, "rate": 1e-3},
    }
    assert training.plateau.model_dump() == {"min_delta": 1e-4, "patience": 3, "factor": 0.1}
    assert training.early_stopping.model_dump() == {"min_delta": 0, "patience": 10}
    assert recipe.demo is None


def test_base_makes_300_predictions_of_a_clip_as_published():
    recipe = Parameters.model_validate(configured("base"))
    lengths, crops_per_length = crop_lengths.test_time_crops(263, 763, recipe.test_time_crops)
    assert lengths == [263, 363, 463, 563, 663, 763]
    assert crops_per_length == 5
    made = crop_lengths.predictions_per_clip(recipe.test_time_crops, n_folds=recipe.folds.n_folds)
    assert made == 300


def test_an_environment_overrides_single_keys():
    base, demo = configured("base"), configured("demo")
    assert demo["demo"] is not None
    assert demo["training"]["batch_size"] != base["training"]["batch_size"]
    erase, erase_in_base = (env["training"]["augmentation"]["erase"] for env in (demo, base))
    assert erase["probability"] != erase_in_base["probability"]
    assert erase["area"] == erase_in_base["area"]
    assert configured("esc50")["folds"]["source"] == "given"
    assert demo["model"]["weights"] is None  # Neither the demo nor a test needs a network.


@pytest.mark.parametrize("env", ["demo", "esc50"])
def test_the_raw_folder_of_an_environment_follows_the_data_folder(env):
    loader = OmegaConfigLoader(
        conf_source=str(CONF), env=env, runtime_params={"data_dir": "there"}, **CONFIG_LOADER_ARGS
    )
    assert loader["parameters"]["data_dir"] == "there"
    assert loader["parameters"]["raw_dir"].startswith("there/")
    assert loader["catalog"]["train_folds"]["filepath"].startswith("there/")


@pytest.mark.parametrize("name", ["sede", "log_mel.n_mel", "training.phases.low.maximum_rate"])
def test_an_unknown_key_is_refused_by_its_name(base, name):
    with pytest.raises(ValidationError) as error:
        Parameters.model_validate(changed(base, name, 1))
    (problem,) = error.value.errors()
    assert problem["type"] == "extra_forbidden"
    assert ".".join(problem["loc"]) == name


@pytest.mark.parametrize("name", RENAMED)
def test_a_key_of_an_earlier_version_is_refused_by_its_name(base, name):
    with pytest.raises(ValidationError) as error:
        Parameters.model_validate(changed(base, name, {"n_lengths": 1}))
    (problem,) = error.value.errors()
    assert problem["type"] == "extra_forbidden"
    assert ".".join(problem["loc"]) == name


def test_network_settings_are_parameters_by_the_same_names(base):
    names = NetworkSettings.model_fields
    assert set(names) < set(Parameters.model_fields)
    NetworkSettings.model_validate({name: base[name] for name in names})


def test_a_missing_key_is_refused_by_its_name(base):
    parameters = copy.deepcopy(base)
    del parameters["training"]["plateau"]["factor"]
    with pytest.raises(ValidationError) as error:
        Parameters.model_validate(parameters)
    (problem,) = error.value.errors()
    assert (problem["type"], problem["loc"]) == ("missing", ("training", "plateau", "factor"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "audioset"),
        ("seed", "tomorrow"),
        ("trim.top_db", 0),
        ("log_mel.n_mels", 16),
        ("log_mel.kind", "htk"),
        ("folds.source", "random"),
        ("folds.n_folds", 1),
        ("crop_lengths.percentiles", [75, 25]),
        ("crop_lengths.percentiles", [25, 175]),
        ("crop_lengths.percentiles", [25]),
        ("crop_lengths.seconds", [3, 1]),
        ("crop_lengths.seconds", [0, 1]),
        ("model.head", "deep"),
        ("training.weight_decay", -0.1),
        ("training.phases.cosine.warm_up", -1),
        ("training.probe_only", True),
        ("training.probe_fraction", 1.5),
        ("model.pooled_stages", [-1]),
        ("model.pooled_stages", [12, 12]),
        ("model.width", -1),
        ("model.width", 0.6),
        ("model.frozen_stages", -1),
        ("training.batch_size", 0),
        ("training.batch_size", 1.5),
        ("training.selection", "worst"),
        ("training.augmentation.flip", 1.1),
        ("training.augmentation.erase.aspect", 0),
        ("training.mixup_alpha.mel", -0.1),
        ("training.phases.cyclic.epochs", -1),
        ("training.phases.low.rate", 0),
        ("training.phases.cyclic.minimum_rate", 1),
        ("training.augmentation.erase.area", [0.4, 0.02]),
        ("training.plateau.factor", 1),
        ("seed", -1),
        ("seed", 2**32),
        ("n_jobs", 0),
        ("test_time_crops.subset", "shared"),
        ("test_time_crops.crops_per_length", 0),
        ("demo", {"n_train": 0, "n_test": 1}),
        ("download.record", "zenodo.org/records/2552860"),
    ],
)
def test_a_wrong_value_is_refused(base, name, value):
    with pytest.raises(ValidationError) as error:
        Parameters.model_validate(changed(base, name, value))
    for problem in error.value.errors():
        location = ".".join(map(str, problem["loc"]))
        # A rule for several values together is a problem of their group.
        assert location.startswith(name) or name.startswith(location)


def test_a_stage_without_an_epoch_is_refused(base):
    for phase in ("cyclic", "low", "high", "cosine"):
        base = changed(base, f"training.phases.{phase}.epochs", 0)
    with pytest.raises(ValidationError, match="no phase has an epoch"):
        Parameters.model_validate(base)
    Parameters.model_validate(changed(base, "training.probe", True))
    Parameters.model_validate(changed(base, "training.phases.cosine.epochs", 1))


def test_the_planned_phases_are_those_with_epochs_in_order_and_none_after_a_probe_only(base):
    for phase in ("low", "high"):
        base = changed(base, f"training.phases.{phase}.epochs", 0)
    base = changed(base, "training.phases.cosine.epochs", 5)
    training = Parameters.model_validate(base).training
    phases = [("cyclic", training.phases.cyclic), ("cosine", training.phases.cosine)]
    assert training.planned_phases() == phases
    base = changed(changed(base, "training.probe", True), "training.probe_only", True)
    assert Parameters.model_validate(base).training.planned_phases() == []


def test_the_stages_follow_from_the_summary_features():
    assert Model(**MODEL, weights=None).stages == ("mel", "mel_pca")
    assert Model(**{**MODEL, "summary_features": False}, weights=None).stages == ("mel",)


def test_parameters_cannot_be_changed(base):
    parameters = Parameters.model_validate(base)
    with pytest.raises(ValidationError, match="frozen"):
        parameters.log_mel.n_mels = 128


@pytest.mark.parametrize("weights", [None, "none", "None", "null", ""])
def test_weights_may_be_none_in_any_spelling(weights):
    assert Model(**{**MODEL, "weights": weights}).weights is None


def test_weights_may_be_imagenet_or_a_file_that_exists(tmp_path):
    path = tmp_path / "mine.weights.h5"
    with pytest.raises(
        ValidationError, match="neither none, imagenet, audioset nor a file that exists"
    ):
        Model(**{**MODEL, "weights": str(path)})
    path.touch()
    for weights in (path, str(path), "imagenet"):
        model = Model(**{**MODEL, "weights": weights})
        assert model.weights == str(weights)
