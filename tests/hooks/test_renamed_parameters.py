import pytest
from pydantic import ValidationError

from fsat_kedro.hooks.parameters import _readable
from fsat_kedro.parameters import RENAMED, Parameters


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"views": {"n_lengths": 1}},
            "'views' is now test_time_crops (n_lengths, crops_per_length instead of n_spans, ",
        ),
        (
            {"inference": {"runtime": "auto", "views": "exact"}},
            "'inference.views' is now test_time_crops.subset (exact is all; shared was removed)",
        ),
        ({"lengths": {}}, "'lengths' is now crop_lengths"),
        (
            {"rejection": {"max_fraction": 0.1, "max_share": 0.1}},
            "'rejection.max_share' is now rejection.max_fraction",
        ),
        (
            {"training": {"plateau": {"stop_after": 10}}},
            "'training.plateau.stop_after' is now training.early_stopping.patience",
        ),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_new_name(parameters, message):
    with pytest.raises(ValidationError) as error:
        Parameters.model_validate(parameters)
    assert f"parameter {message}" in _readable(error.value)


def test_the_new_names_exist():
    for problem in RENAMED.values():
        model = Parameters
        for key in problem.split()[2].split("."):
            assert key in model.model_fields
            model = model.model_fields[key].annotation
