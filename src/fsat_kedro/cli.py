"""Commands of the project: Kedro's `run` with `--verbose`, `tag`, `serve`, `export` and `app`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import KedroCliError, env_option
from kedro.framework.startup import ProjectMetadata

from fsat_kedro.data.raw_files import printable
from fsat_kedro.errors import InputError

_INSTALL_APP = 'uv pip install --constraint requirements.lock --editable ".[app]"'

_data_dir_option = click.option(
    "--data-dir",
    help="Folder or url with the results of a training. By default that of the environment.",
)

# Every `kedro` command imports this module: functions import what takes long.
if TYPE_CHECKING:
    import pandas as pd

    from fsat_kedro.inference.export import Format
    from fsat_kedro.inference.tagger import Sound, Tagger


@click.group(name="fsat_kedro")
def cli() -> None:
    """Commands of the project."""


def _set_verbose(context: click.Context, option: click.Parameter, value: bool) -> None:
    KedroCliError.VERBOSE_ERROR = value


run.params.append(
    click.Option(
        ["--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Show Kedro's own messages, and the traceback of an error.",
    )
)
cli.add_command(run)


@cli.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, readable=False, path_type=Path)
)
@env_option
@_data_dir_option
@click.option(
    "--timeline",
    is_flag=True,
    help="Tell what is heard when, for recordings longer than a clip; also as files for a "
    "spreadsheet and for Audacity.",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files of --timeline. By default that of each recording.",
)
@click.pass_obj
def tag(
    metadata: ProjectMetadata,
    files: list[Path],
    env: str | None,
    data_dir: str,
    timeline: bool,
    output_dir: Path | None,
) -> None:
    """Tag sound files with the trained ensemble.

    To tag a whole folder: `kedro run --pipelines tag --params tag_dir=FOLDER`.
    """
    from fsat_kedro.inference.tagger import Sound

    if output_dir and not timeline:
        raise click.UsageError("--output-dir is for the files of --timeline: give both")
    sounds = [Sound(printable(file.name), str(file.absolute())) for file in files]
    with _tagger(*_folders(metadata, env, data_dir)) as tagger:
        if timeline:
            _print_timelines(tagger, dict(zip(files, sounds, strict=True)), env, output_dir)
            return
        tags = tagger.tag(sounds)
    for file, row in zip(files, tags.itertuples(index=False), strict=True):
        click.echo(f"{printable(str(file))}\n{_format_tags(row)}")


@cli.command()
@env_option
@_data_dir_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5001, show_default=True, help="Port to listen on.")
@click.pass_obj
def serve(metadata: ProjectMetadata, env: str | None, data_dir: str, host: str, port: int) -> None:
    """Serve the trained ensemble to clients that send sounds: see docs/serving.md.

    Environment variables set limits, such as FSAT_KEDRO_MAX_ROWS.
    """
    from fsat_kedro.inference.server import Server
    from fsat_kedro.inference.service import Limits, TaggingService

    folders = _folders(metadata, env, data_dir)
    try:
        limits = Limits.from_environment()
    except InputError as error:
        raise click.ClickException(str(error)) from error
    with _tagger(*folders, max_seconds=limits.max_seconds) as tagger:
        service = TaggingService(tagger, limits)
    # All of the ensemble is in memory now, and a training may replace its files.
    click.echo(f"Serving the ensemble of {folders[0]} on http://{host}:{port}")
    Server(service, limits, host=host, port=port).run()


@cli.command()
@env_option
@_data_dir_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7860, show_default=True, help="Port to listen on.")
@click.option(
    "--raw-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Raw folder of the training, for corrected labels. By default that of the environment.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
@click.pass_obj
def app(
    metadata: ProjectMetadata,
    env: str | None,
    data_dir: str,
    host: str,
    port: int,
    raw_dir: Path | None,
    browser: bool,
) -> None:
    """Tag sounds and correct wrong labels on a web page: see docs/app.md."""
    try:
        from fsat_kedro.app import MAX_SECONDS, load_review, serve_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise click.ClickException(f"Gradio is not installed. Install it: {_INSTALL_APP}") from None
    from fsat_kedro.parameters import Tag
    from fsat_kedro.pipeline_registry import configured_parameters

    parameters = configured_parameters(env)
    folders = _folders(metadata, env, data_dir)
    # Three tags of minutes of sound would say little, and take much memory.
    with _tagger(*folders, max_seconds=MAX_SECONDS) as tagger:
        raw_dir = raw_dir or metadata.project_path / parameters["raw_dir"]
        review = load_review(folders[0], raw_dir.absolute())
        tagger.prepare()
    # All of the ensemble is in memory now, and a training may replace its files.
    click.echo(f"The page of {folders[0]} is on http://{host}:{port}; Ctrl-C ends it")
    # An end by a signal removes the uploads too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    serve_page(
        tagger,
        Tag.model_validate(parameters["tag"]),
        review,
        name=Path(folders[0]).name,
        command=f"kedro run --env {env}" if env else "kedro run",
        host=host,
        port=port,
        open_browser=browser,
    )


def _print_timelines(
    tagger: "Tagger", sounds: "dict[Path, Sound]", env: str | None, output_dir: Path | None
) -> None:
    """Print the segments of recordings, and write them and the windows beside each."""
    from fsat_kedro.datasets.table_dataset import spreadsheet_csv
    from fsat_kedro.inference.timeline import audacity_labels, tag_recording
    from fsat_kedro.parameters import Tag
    from fsat_kedro.pipeline_registry import configured_parameters

    folders = {file: output_dir or file.absolute().parent for file in sounds}
    if len({(folder, file.name) for file, folder in folders.items()}) < len(folders):
        raise click.ClickException("two files of one name: tag them in two commands")
    settings = Tag.model_validate(configured_parameters(env)["tag"])
    for file, sound in sounds.items():
        found = tag_recording(tagger, sound, settings)
        click.echo(printable(str(file)))
        if found.reason:
            click.echo(f"  rejected: {found.reason}")
            continue
        for row in found.segments.itertuples(index=False):
            span = f"{_clock(row.start)} to {_clock(row.end)}"
            click.echo(f"  {span}  {row.probability:6.1%}  {printable(row.label)}")
        if found.segments.empty:
            click.echo(f"  no tag has a probability of {settings.threshold:.0%} anywhere")
        if found.warning:
            click.echo(f"  warning: {found.warning}")
        _write(
            folders[file],
            {
                f"{file.name}.segments.csv": spreadsheet_csv(found.segments),
                f"{file.name}.windows.csv": spreadsheet_csv(found.windows),
                f"{file.name}.labels.txt": audacity_labels(found.segments),
            },
        )


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Write files into a folder, and print where they are.

    Raises:
        ClickException: the folder cannot be written to.
    """
    from fsat_kedro.files import open_atomic

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with open_atomic(folder / name) as file:
                file.write(text.encode())
            click.echo(f"  written: {printable(str(folder / name))}")
    except OSError as error:
        reason = f"{printable(str(folder))} cannot be written to ({error.strerror})"
        raise click.ClickException(f"{reason}: name another folder with --output-dir") from error


def _clock(seconds: float) -> str:
    """Format a time as h:mm:ss.s."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}"


def _fold_numbers(context: click.Context, option: click.Parameter, value: str | None) -> list[int]:
    try:
        return [int(number) for number in value.split(",")] if value else []
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a list of numbers such as 1,3") from error


@cli.command()
@env_option
@_data_dir_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "openvino"]),
    required=True,
    help="Format of the networks.",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to make the folder tagger_onnx or tagger_openvino. By default "
    "07_model_output/export in the data folder; the current folder if that is a url.",
)
@click.option(
    "--folds",
    callback=_fold_numbers,
    help="Networks to export, such as 1,3; by default all. Fewer are smaller and faster.",
)
@click.pass_obj
def export(
    metadata: ProjectMetadata,
    env: str | None,
    data_dir: str | None,
    format_: "Format",
    output_dir: Path | None,
    folds: list[int],
) -> None:
    """Export the trained ensemble, to tag sounds without this project: see docs/export.md."""
    from fsat_kedro.files import is_url
    from fsat_kedro.hooks.progress import import_keras_quietly
    from fsat_kedro.inference.export import FILES, TOLERANCE, require_packages
    from fsat_kedro.inference.export import export as export_ensemble

    folders = _folders(metadata, env, data_dir)
    if output_dir is None:
        output_dir = Path() if is_url(folders[0]) else Path(folders[0], "07_model_output/export")
    try:
        require_packages(format_)  # Before the ensemble and Keras take their seconds.
        with _tagger(*folders) as tagger:
            import_keras_quietly()
            click.echo(f"Converting {len(folds) or tagger.settings.n_folds} networks …")
            exported = export_ensemble(tagger, output_dir, format_=format_, folds=folds)
    except (InputError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{exported.folder}: {', '.join(FILES[format_])} ({exported.n_bytes / 1e6:.1f} MB)\n"
        f"{len(tagger.labels)} labels: {printable(', '.join(tagger.labels))}\n"
        f"largest difference of a probability from Keras: {exported.difference:.1g} (limit "
        f"{TOLERANCE:g})\n"
        f"Example: {metadata.project_path / 'docs/tag_with_onnx.py'}; it is explained in "
        "docs/export.md"
    )


def _folders(metadata: ProjectMetadata, env: str | None, data_dir: str | None) -> tuple[str, str]:
    """Return data_dir, by default that of the environment, and the folder of its local copies."""
    from fsat_kedro.files import is_url
    from fsat_kedro.pipeline_registry import configured_parameters

    parameters = configured_parameters(env)
    configured = parameters["data_dir"]
    if not is_url(configured):
        configured = str(metadata.project_path / configured)
    return (data_dir or configured).rstrip("/"), str(
        metadata.project_path / parameters["cache_dir"]
    )


@contextmanager
def _tagger(data_dir: str, cache_dir: str, **settings: float) -> Iterator["Tagger"]:
    """Yield the ensemble of a training, locked so that no other run replaces it.

    `settings` are those of `Tagger.load`.

    Raises:
        ClickException: there is no ensemble that can be used.
    """
    from fsat_kedro.datasets import TaggerDataset
    from fsat_kedro.files import local_path
    from fsat_kedro.hooks.locks import lock
    from fsat_kedro.hooks.marks import Marks
    from fsat_kedro.hooks.progress import import_keras_quietly
    from fsat_kedro.inference.tagger import Tagger

    try:
        dataset = TaggerDataset(filepath=f"{data_dir}/06_models/tagger.json", cache_dir=cache_dir)
        names = {"tagger", *dataset.parts()}
        try:
            locks = lock(set(), names, local_path(data_dir, cache_dir))
        except OSError:  # Results that this user may only read have no locks.
            locks = ExitStack()
        with locks:
            Marks(data_dir).require_finished(names)
            tagger = Tagger.load(dataset.local_folder(), **settings)
            if not tagger.is_converted():
                import_keras_quietly()
            yield tagger
    except InputError as error:
        raise click.ClickException(str(error)) from error


def _format_tags(row: "pd.Series") -> str:
    if row.reason:
        return f"  rejected: {row.reason}"
    ranked = [(row.tag_1, row.probability_1), (row.tag_2, row.probability_2)]
    ranked.append((row.tag_3, row.probability_3))
    # NaN, where there are fewer than three classes, does not equal itself.
    lines = [f"  {x:6.1%}  {printable(label)}" for label, x in ranked if x == x]
    return "\n".join([*lines, f"  warning: {row.warning}"] if row.warning else lines)
