"""The pages agree with the code."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_configuration_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("pages", DOCS / "write_configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page()
    assert "None" not in module.page()


def test_the_diffs_of_the_page_on_extending_match_the_source():
    source, n_lines = "", 0
    for line in (DOCS / "extending.md").read_text().splitlines():
        if line.startswith(("# src/", "# conf/")):
            source = (DOCS.parent / line.removeprefix("# ")).read_text()
        elif line.startswith(("```", "@@")):
            source = "" if line == "```" else source
        elif source and line.startswith(("-", " ")):
            assert f"{line[1:]}\n" in source
            n_lines += 1
    assert n_lines > 10
