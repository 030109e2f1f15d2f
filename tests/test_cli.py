"""The ensemble of `kedro tag`, beside other runs."""

import pytest

from fsat_kedro import cli
from fsat_kedro.datasets import TaggerDataset
from fsat_kedro.errors import InputError
from fsat_kedro.hooks.locks import lock
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.inference.tagger import Tagger, parts


@pytest.fixture
def data_dir(tmp_path, tagger_settings, monkeypatch):
    """Save an ensemble of which only the settings are real."""
    folder = tmp_path / "06_models"
    for file in parts(2).values():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    TaggerDataset(filepath=f"{folder}/tagger.json").save(tagger_settings)
    monkeypatch.setattr(Tagger, "load", lambda folder: folder)
    return tmp_path


@pytest.mark.parametrize("part", ["tagger", *parts(2)])
def test_no_sound_is_tagged_while_a_run_writes_a_part_of_the_ensemble(data_dir, part):
    with (
        lock({part}, set(), data_dir),
        pytest.raises(InputError, match=f"another run reads or writes {part} in"),
        cli._tagger(str(data_dir), "cache"),
    ):
        pass


@pytest.mark.parametrize("part", ["tagger", *parts(2)])
def test_no_sound_is_tagged_with_an_unfinished_ensemble(data_dir, part):
    Marks(str(data_dir)).mark_unfinished({part})
    with (
        pytest.raises(InputError, match=rf"not finished in .*: {part}\."),
        cli._tagger(str(data_dir), "cache"),
    ):
        pass


def test_no_run_writes_the_ensemble_while_sounds_are_tagged(data_dir):
    with cli._tagger(str(data_dir), "cache") as tagger:
        assert tagger == data_dir / "06_models"
        lock(set(), {"tagger", *parts(2)}, data_dir).close()
        with pytest.raises(InputError, match="another run reads or writes mel_pca_weights_2 in"):
            lock({"mel_pca_weights_2"}, set(), data_dir)
    lock({"mel_pca_weights_2"}, set(), data_dir).close()


def test_a_folder_that_may_only_be_read_needs_no_locks(data_dir, monkeypatch):
    def refuse(*args):
        raise PermissionError("read-only file system")

    monkeypatch.setattr("fsat_kedro.hooks.locks.lock", refuse)
    with cli._tagger(str(data_dir), "cache") as tagger:
        assert tagger == data_dir / "06_models"


def test_a_folder_without_an_ensemble_stays_as_it_is(tmp_path):
    with (
        pytest.raises(InputError, match=r"no trained ensemble in .*tagger.json is missing"),
        cli._tagger(str(tmp_path), "cache"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("warning", ["", "unlike every training clip"])
def test_the_warning_of_a_sound_is_printed(warning):
    from types import SimpleNamespace

    nan = float("nan")
    row = {"tag_1": "Bark", "probability_1": 0.9, "tag_2": "Purr", "probability_2": 0.1}
    row |= {"tag_3": None, "probability_3": nan, "reason": "", "warning": warning}
    printed = cli._format_tags(SimpleNamespace(**row)).splitlines()
    assert printed[:2] == ["   90.0%  Bark", "   10.0%  Purr"]
    assert printed[2:] == ([f"  warning: {warning}"] if warning else [])
