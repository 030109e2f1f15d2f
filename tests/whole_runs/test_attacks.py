"""The attacks of `attack_server.py` on the ensemble of a short demo."""

import shutil

import pytest
from attack_server import ATTACKS, attacked, require_a_quick_end


@pytest.fixture(scope="module")
def target(finished_demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    # The server keeps its converted networks there.
    models = shutil.copytree(finished_demo.outputs / "06_models", folder / "data" / "06_models")
    with attacked(finished_demo.project, models.parent, folder) as target:
        target.require_unharmed()
        yield target


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_server_holds(target, attack):
    attack(target)
    target.require_unharmed()


def test_a_server_that_works_ends_within_five_seconds(target):
    require_a_quick_end(target)
