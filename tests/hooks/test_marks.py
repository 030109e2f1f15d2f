"""Marks on unfinished outputs, in a folder as in a store."""

import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.hooks.marks import Marks


@pytest.fixture(params=["local", "s3"])
def marks(request, tmp_path):
    is_local = request.param == "local"
    return Marks(str(tmp_path / "new") if is_local else request.getfixturevalue("url"))


def test_an_output_is_unfinished_until_it_is_saved(marks):
    assert marks.unfinished() == set()
    marks.mark_unfinished({"mels", "scores"})
    marks.mark_unfinished({"mels"})
    marks.mark_finished("mels")
    marks.mark_finished("never marked")
    assert Marks(marks.data_dir).unfinished() == {"scores"}


def test_unfinished_inputs_are_refused_by_name_with_the_remedy(marks):
    marks.mark_unfinished({"mels", "scores", "plots"})
    marks.require_finished({"clips"})
    with pytest.raises(InputError, match=r"not finished in .*: mels, scores\. .*--only-missing"):
        marks.require_finished({"clips", "mels", "scores"})
