"""What the pages say is so."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_the_configuration_has_every_parameter_as_it_is():
    spec = importlib.util.spec_from_file_location("pages", DOCS / "write_configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page()
    assert "None" not in module.page()
