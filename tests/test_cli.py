"""The command `kedro tag`, with a tagger that only opens the files."""

import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner

from fsat_kedro import cli
from fsat_kedro.data.raw_files import open_raw_file
from fsat_kedro.errors import UnreadableError
from fsat_kedro.inference.tagger import Tagger


class OpeningTagger:
    """Tags every file that can be opened as one label."""

    def tag(self, sounds):
        rows = []
        for sound in sounds:
            try:
                open_raw_file(sound.content).close()
                reason = ""
            except UnreadableError as error:
                reason = str(error)
            rows.append((sound.name, "Be\x1b[31mll", 0.5, "Bark", 0.3, "", float("nan"), reason))
        ranks = [f"{name}_{rank}" for rank in (1, 2, 3) for name in ("tag", "probability")]
        return pd.DataFrame(rows, columns=["fname", *ranks, "reason"])


@pytest.fixture
def tag(tmp_path, monkeypatch):
    """Return a function that runs `kedro tag` and returns its lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Tagger, "load", lambda _: OpeningTagger())
    monkeypatch.setattr("fsat_kedro.hooks.progress.import_keras_quietly", lambda: None)
    monkeypatch.setattr(
        "fsat_kedro.pipeline_registry.configured_parameters",
        lambda _: {"data_dir": "data", "cache_dir": "cache"},
    )
    settings = tmp_path / "data" / "06_models" / "tagger.json"
    settings.parent.mkdir(parents=True)
    settings.write_text("{}")

    def run(*files):
        project = SimpleNamespace(project_path=tmp_path)
        result = CliRunner().invoke(cli.tag, list(files), obj=project, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output.splitlines()

    return run


TAGS = [r"   50.0%  Be\x1b[31mll", "   30.0%  Bark"]


def test_a_name_is_printed_with_escapes(tag):
    names = ["a\x1b[31m\n.wav", "bark\udcff.wav"]
    for name in names:
        Path(name).touch()
    assert tag(*names) == [r"a\x1b[31m\n.wav", *TAGS, r"bark\udcff.wav", *TAGS]


def test_what_is_no_file_is_rejected_and_the_rest_tagged(tag):
    os.mkfifo("fifo.wav")
    Path("folder").mkdir()
    Path("a.wav").touch()
    refused = "  rejected: neither a file nor a link to one"
    assert tag("fifo.wav", "folder", "/dev/zero", "a.wav") == [
        *("fifo.wav", refused),
        *("folder", "  rejected: not readable: Is a directory"),
        *("/dev/zero", refused),
        *("a.wav", *TAGS),
    ]
