import pytest
from pydantic import ValidationError

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
