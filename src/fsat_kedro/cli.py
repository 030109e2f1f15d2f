"""Commands of the project: Kedro's `run` with `--verbose`, and `tag`."""

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

# Every `kedro` command imports this module: functions import what takes long.
if TYPE_CHECKING:
    import pandas as pd

    from fsat_kedro.inference.tagger import Tagger


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
@click.option(
    "--data-dir",
    help="Folder or url with the results of a training. By default that of the environment.",
)
@click.pass_obj
def tag(metadata: ProjectMetadata, files: list[Path], env: str | None, data_dir: str) -> None:
    """Tag sound files with the trained ensemble.

    To tag a whole folder: `kedro run --pipelines tag --params tag_dir=FOLDER`.
    """
    from fsat_kedro.files import is_url
    from fsat_kedro.hooks.progress import import_keras_quietly
    from fsat_kedro.inference.tagger import Sound
    from fsat_kedro.pipeline_registry import configured_parameters

    import_keras_quietly()
    parameters = configured_parameters(env)
    configured = parameters["data_dir"]
    if not is_url(configured):
        configured = str(metadata.project_path / configured)
    folder = (data_dir or configured).rstrip("/")
    cache_dir = str(metadata.project_path / parameters["cache_dir"])
    try:
        with _tagger(folder, cache_dir) as tagger:
            tags = tagger.tag([Sound(printable(file.name), str(file.absolute())) for file in files])
    except InputError as error:
        raise click.ClickException(str(error)) from error
    for file, row in zip(files, tags.itertuples(index=False), strict=True):
        click.echo(f"{printable(str(file))}\n{_format_tags(row)}")


@contextmanager
def _tagger(data_dir: str, cache_dir: str) -> Iterator["Tagger"]:
    """Yield the ensemble of a training, locked so that no other run replaces it."""
    from fsat_kedro.datasets import TaggerDataset
    from fsat_kedro.files import local_path
    from fsat_kedro.hooks.locks import lock
    from fsat_kedro.hooks.marks import Marks
    from fsat_kedro.inference.tagger import Tagger

    settings = f"{data_dir}/06_models/tagger.json"
    dataset = TaggerDataset(filepath=settings, cache_dir=cache_dir)
    names = {"tagger", *dataset.parts()}
    try:
        locks = lock(set(), names, local_path(data_dir, cache_dir))
    except OSError:  # Results that this user may only read have no locks.
        locks = ExitStack()
    with locks:
        Marks(data_dir).require_finished(names)
        yield Tagger.load(dataset.local_folder())


def _format_tags(row: "pd.Series") -> str:
    if row.reason:
        return f"  rejected: {row.reason}"
    ranked = [(row.tag_1, row.probability_1), (row.tag_2, row.probability_2)]
    ranked.append((row.tag_3, row.probability_3))
    # NaN, where there are fewer than three classes, does not equal itself.
    lines = [f"  {x:6.1%}  {printable(label)}" for label, x in ranked if x == x]
    return "\n".join([*lines, f"  warning: {row.warning}"] if row.warning else lines)
