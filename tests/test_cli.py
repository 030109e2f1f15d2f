"""The commands `kedro tag` and `kedro export`, with an ensemble or a tagger that is not real."""

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click import ClickException
from click.testing import CliRunner

from fsat_kedro import cli
from fsat_kedro.data.raw_files import open_raw_file
from fsat_kedro.datasets import TaggerDataset
from fsat_kedro.errors import InputError, UnreadableError
from fsat_kedro.hooks.locks import lock
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.inference.export import Export
from fsat_kedro.inference.tagger import Tagger, parts
from fsat_kedro.inference.timeline import Timeline
from fsat_kedro.parameters import Tag

# The ensemble


@pytest.fixture
def data_dir(tmp_path, tagger_settings, monkeypatch):
    """Save an ensemble of which only the settings are real."""
    folder = tmp_path / "06_models"
    for file in parts(2).values():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    TaggerDataset(filepath=f"{folder}/tagger.json").save(tagger_settings)
    loaded = SimpleNamespace(is_converted=lambda: True)
    monkeypatch.setattr(Tagger, "load", lambda folder: loaded)
    loaded.folder = folder
    return tmp_path


@pytest.mark.parametrize("part", ["tagger", *parts(2)])
def test_no_sound_is_tagged_while_a_run_writes_a_part_of_the_ensemble(data_dir, part):
    with (
        lock({part}, set(), data_dir),
        pytest.raises(ClickException, match=f"another run reads or writes {part} in"),
        cli._tagger(str(data_dir), "cache"),
    ):
        pass


@pytest.mark.parametrize("part", ["tagger", *parts(2)])
def test_no_sound_is_tagged_with_an_unfinished_ensemble(data_dir, part):
    Marks(str(data_dir)).mark_unfinished({part})
    with (
        pytest.raises(ClickException, match=rf"not finished in .*: {part}\."),
        cli._tagger(str(data_dir), "cache"),
    ):
        pass


def test_no_run_writes_the_ensemble_while_sounds_are_tagged(data_dir):
    with cli._tagger(str(data_dir), "cache") as tagger:
        assert tagger.folder == data_dir / "06_models"
        lock(set(), {"tagger", *parts(2)}, data_dir).close()
        with pytest.raises(InputError, match="another run reads or writes mel_pca_weights_2 in"):
            lock({"mel_pca_weights_2"}, set(), data_dir)
    lock({"mel_pca_weights_2"}, set(), data_dir).close()


def test_a_folder_that_may_only_be_read_needs_no_locks(data_dir, monkeypatch):
    def refuse(*args):
        raise PermissionError("read-only file system")

    monkeypatch.setattr("fsat_kedro.hooks.locks.lock", refuse)
    with cli._tagger(str(data_dir), "cache") as tagger:
        assert tagger.folder == data_dir / "06_models"


def test_a_folder_without_an_ensemble_stays_as_it_is(tmp_path):
    with (
        pytest.raises(ClickException, match=r"no trained ensemble in .*tagger.json is missing"),
        cli._tagger(str(tmp_path), "cache"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("warning", ["", "unlike every training clip"])
def test_the_warning_of_a_sound_is_printed(warning):
    nan = float("nan")
    row = {"tag_1": "Bark", "probability_1": 0.9, "tag_2": "Purr", "probability_2": 0.1}
    row |= {"tag_3": None, "probability_3": nan, "reason": "", "warning": warning}
    printed = cli._format_tags(SimpleNamespace(**row)).splitlines()
    assert printed[:2] == ["   90.0%  Bark", "   10.0%  Purr"]
    assert printed[2:] == ([f"  warning: {warning}"] if warning else [])


# Names and files, with a tagger that only opens the files


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
        return pd.DataFrame(rows, columns=["fname", *ranks, "reason"]).assign(warning="")


@pytest.fixture
def tag(tmp_path, monkeypatch):
    """Return a function that runs `kedro tag` and returns its lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_tagger", lambda *_: nullcontext(OpeningTagger()))
    monkeypatch.setattr(
        "fsat_kedro.pipeline_registry.configured_parameters",
        lambda _: {"data_dir": "data", "cache_dir": "cache", "tag": TAG},
    )

    def run(*arguments, exit_code=0):
        project = SimpleNamespace(project_path=tmp_path)
        result = CliRunner().invoke(cli.tag, list(arguments), obj=project, catch_exceptions=False)
        assert result.exit_code == exit_code
        return result.output.splitlines()

    return run


TAG = {"timeline": False, "window_seconds": 2, "hop_seconds": 0.5, "threshold": 0.5}
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


# Timelines

SEGMENTS = pd.DataFrame(
    [(0.0, 2.5, "=1+1", 0.75), (59.96, 3725.0, "B\x1b[31m", 0.5)],
    columns=["start", "end", "label", "probability"],
)


@pytest.fixture
def timeline(tag, monkeypatch):
    """Return a function that runs `kedro tag --timeline` with foreseen segments."""

    def tag_recording(tagger, sound, settings):
        assert settings == Tag(**TAG)
        nothing = SEGMENTS[:0]
        if sound.name == "broken.wav":
            return Timeline(nothing, nothing, reason="no samples")
        return Timeline(SEGMENTS.drop(columns="label"), SEGMENTS, warning="cut off")

    monkeypatch.setattr("fsat_kedro.inference.timeline.tag_recording", tag_recording)
    return partial(tag, "--timeline")


def test_a_timeline_is_printed_and_written_beside_the_recording(timeline):
    Path("sounds").mkdir()
    Path("sounds/a.wav").touch()
    Path("sounds/broken.wav").touch()
    folder = Path("sounds").absolute()
    assert timeline("sounds/broken.wav", "sounds/a.wav") == [
        *("sounds/broken.wav", "  rejected: no samples"),
        "sounds/a.wav",
        "  0:00:00.0 to 0:00:02.5   75.0%  =1+1",
        r"  0:01:00.0 to 1:02:05.0   50.0%  B\x1b[31m",
        "  warning: cut off",
        f"  written: {folder}/a.wav.segments.csv",
        f"  written: {folder}/a.wav.windows.csv",
        f"  written: {folder}/a.wav.labels.txt",
    ]
    assert Path("sounds/a.wav.labels.txt").read_text().splitlines() == [
        "0.000000\t2.500000\t=1+1",
        "59.960000\t3725.000000\tB\\x1b[31m",
    ]
    # A spreadsheet would compute a text that begins with =.
    assert Path("sounds/a.wav.segments.csv").read_text().splitlines()[:2] == [
        "start,end,label,probability",
        "0.000000,2.500000,'=1+1,0.750000",
    ]
    assert len(list(folder.iterdir())) == 5


def test_timelines_of_one_name_do_not_replace_each_other(timeline):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.wav").touch()
    timeline("a/x.wav", "b/x.wav")
    error = timeline("a/x.wav", "b/x.wav", "--output-dir", "out", exit_code=1)
    assert error == ["Error: two files of one name: tag them in two commands"]
    assert not Path("out").exists()
    timeline("a/x.wav", "--output-dir", "out/deep")
    assert len(list(Path("out/deep").iterdir())) == 3


def test_a_folder_that_cannot_be_written_to_has_a_remedy(timeline):
    Path("a.wav").touch()
    Path("file").touch()
    *_, error = timeline("a.wav", "--output-dir", "file/below", exit_code=1)
    assert error.startswith("Error: file/below cannot be written to (Not a directory)")
    assert "--output-dir" in error


def test_output_dir_without_timeline_is_refused(tag):
    Path("a.wav").touch()
    *_, error = tag("a.wav", "--output-dir", "out", exit_code=2)
    assert error == "Error: --output-dir is for the files of --timeline: give both"


# Exports, without their files


@pytest.fixture
def run_export(tmp_path, monkeypatch):
    """Return a function that runs `kedro export`; what would be exported is in its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "fsat_kedro.pipeline_registry.configured_parameters",
        lambda _: {"data_dir": "data", "cache_dir": "cache"},
    )
    monkeypatch.setattr("fsat_kedro.inference.export.find_spec", lambda package: object())
    calls = []

    def export(tagger, output_dir, **options):
        calls.append((output_dir, options))
        return Export(output_dir / "tagger_onnx", 12_345_678, 2e-7)

    monkeypatch.setattr("fsat_kedro.inference.export.export", export)

    def run(*arguments):
        project = SimpleNamespace(project_path=tmp_path)
        result = CliRunner().invoke(cli.export, ["--format", "onnx", *arguments], obj=project)
        result.calls = calls
        return result

    return run


@pytest.fixture
def loaded(monkeypatch):
    settings = SimpleNamespace(n_folds=5)
    tagger = SimpleNamespace(labels=["Bark", "Be\x1b[31mll"], settings=settings)
    monkeypatch.setattr(cli, "_tagger", lambda *_: nullcontext(tagger))


@pytest.mark.parametrize(
    ("arguments", "output_dir"),
    [
        ((), "data/07_model_output/export"),
        (("--data-dir", "results"), "results/07_model_output/export"),
        (("--data-dir", "s3://bucket/run"), "."),
        (("--output-dir", "here"), "here"),
    ],
)
def test_an_export_is_written_to_the_data_folder_or_beside_it(
    loaded, run_export, tmp_path, arguments, output_dir
):
    ((found, options),) = run_export(*arguments).calls
    assert found.absolute() == tmp_path / output_dir
    assert options == {"format_": "onnx", "folds": []}


def test_a_summary_of_an_export_is_printed(loaded, run_export):
    result = run_export("--output-dir", "here", "--folds", "1,3")
    assert result.calls[0][1]["folds"] == [1, 3]
    printed = result.output.splitlines()
    assert printed[0] == "Converting 2 networks …"
    assert printed[1] == "here/tagger_onnx: tagger.onnx, preprocessing.npz (12.3 MB)"
    assert printed[2] == r"2 labels: Bark, Be\x1b[31mll"
    assert "from Keras: 2e-07 (limit 0.001)" in printed[3]
    assert "docs/tag_with_onnx.py" in printed[4]


def test_folds_are_numbers(loaded, run_export):
    result = run_export("--folds", "1;3")
    assert "1;3 is not a list of numbers such as 1,3" in result.output
    assert (result.exit_code, result.calls) == (2, [])


def test_packages_that_are_missing_are_named_before_anything_is_read(run_export, monkeypatch):
    monkeypatch.setattr("fsat_kedro.inference.export.find_spec", lambda package: None)
    result = run_export()
    assert "--format onnx needs tf2onnx, onnx, onnxruntime: uv pip install" in result.output
    assert (result.exit_code, result.calls) == (1, [])


def test_an_ensemble_that_is_not_whole_is_not_exported(data_dir, run_export):
    Marks(str(data_dir)).mark_unfinished({"mel_pca_weights_2"})
    unfinished = run_export("--data-dir", str(data_dir))
    assert "not finished in" in unfinished.output
    missing = run_export("--data-dir", str(data_dir / "elsewhere"))
    assert "no trained ensemble in" in missing.output
    assert (unfinished.exit_code, missing.exit_code, missing.calls) == (1, 1, [])
