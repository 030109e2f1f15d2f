import errno

import pytest
from click import ClickException
from kedro.io import DatasetError
from pydantic import ValidationError

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.errors import ReadableErrorHooks
from fsat_kedro.hooks.parameters import _readable
from fsat_kedro.parameters import Model, Trim, Views


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
        Views.model_validate({"n_lengths": 0, "n_spans": 0, "batch_size": 1})
    readable = _readable(error.value)
    assert "'n_lengths' is 0" in readable
    assert "; parameter 'n_spans' is 0" in readable


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
