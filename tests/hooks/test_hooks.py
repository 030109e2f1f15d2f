import errno

import pytest
from click import ClickException
from kedro.io import DatasetError
from pydantic import ValidationError

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.errors import ReadableErrorHooks
from fsat_kedro.hooks.mlflow import _flat, _fold_of
from fsat_kedro.hooks.parameters import _readable
from fsat_kedro.parameters import Model, TestTimeCrops, Trim


def test_nested_mappings_become_dotted_keys():
    scores = {
        "map_at_3": 0.9,
        "parts": {"public": 0.8, "private": {"all": 0.7}},
    }
    assert _flat(scores) == {
        "map_at_3": 0.9,
        "parts.public": 0.8,
        "parts.private.all": 0.7,
    }


def test_lists_of_values_stay_whole_and_empty_mappings_leave_nothing():
    assert _flat({"area": [0.02, 0.4], "demo": None}) == {"area": [0.02, 0.4], "demo": None}
    assert _flat({"map_at_3": {}, "empty": []}) == {"empty": []}


@pytest.mark.parametrize(
    ("namespace", "fold"),
    [
        ("training.fold_3", "fold_3"),
        ("training.fold_10", "fold_10"),
        ("inference.fold_3", None),
        ("training", None),
        ("training.scores", None),
        ("", None),
        (None, None),
    ],
)
def test_the_fold_is_that_of_a_training_namespace(namespace, fold):
    assert _fold_of(namespace) == fold


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (Trim, {"top_db": 60, "topdb": 1}, "unknown parameter 'topdb'"),
        (Trim, {}, "parameter 'top_db' is not set"),
        (Trim, {"top_db": -1}, "parameter 'top_db' is -1: Input should be greater than 0"),
        (Trim, {"top_db": "loud"}, "parameter 'top_db' is 'loud': "),
        (
            Model,
            {"weights": "nowhere.h5", "width": 1, "momentum": {"backbone": 0.9, "others": 0.9}},
            "'nowhere.h5' is neither none, imagenet nor a file that exists",
        ),
    ],
)
def test_a_wrong_parameter_is_told_by_name_and_value(group, values, message):
    with pytest.raises(ValidationError) as error:
        group.model_validate(values)
    readable = _readable(error.value)
    assert message in readable
    assert readable.endswith("All parameters are in conf/base/parameters*.yml")


def test_several_wrong_parameters_are_told_at_once():
    with pytest.raises(ValidationError) as error:
        TestTimeCrops.model_validate(
            {"n_lengths": 0, "crops_per_length": 0, "subset": "all", "batch_size": 1}
        )
    readable = _readable(error.value)
    assert "'n_lengths' is 0" in readable
    assert "; parameter 'crops_per_length' is 0" in readable


class Catalog:
    """Knows where everything is written."""

    def __init__(self, data_dir):
        self.data_dir = data_dir

    def load(self, _):
        return str(self.data_dir)


def error_of_saving(cause):
    error = DatasetError("Failed while saving data")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EACCES, "Permission denied"),
        OSError("Not enough free space to write 80000000 bytes"),
    ],
)
def test_a_disk_that_is_full_or_not_writable_is_told_with_the_remedy(tmp_path, cause):
    with pytest.raises(ClickException, match=r"GB free.*--only-missing-outputs") as error:
        ReadableErrorHooks().on_pipeline_error(error_of_saving(cause), Catalog(tmp_path))
    assert str(cause) in error.value.message


@pytest.mark.parametrize("cause", [ValueError("free space"), OSError(errno.ENOENT, "gone")])
def test_another_error_stays_what_it_is(tmp_path, cause):
    ReadableErrorHooks().on_pipeline_error(error_of_saving(cause), Catalog(tmp_path))


def test_what_a_dataset_says_of_the_users_input_is_a_message_of_the_command(tmp_path):
    with pytest.raises(ClickException, match="train first"):
        ReadableErrorHooks().on_pipeline_error(
            error_of_saving(InputError("train first")), Catalog(tmp_path)
        )
