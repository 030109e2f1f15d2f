"""Commands of the project: Kedro's `run` with `--verbose`, and `tag`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.project import run
from kedro.framework.cli.utils import KedroCliError, env_option
from kedro.framework.startup import ProjectMetadata

from fsat_kedro.errors import InputError

# Imported where it is used, because every `kedro` command imports this module.
if TYPE_CHECKING:
    import pandas as pd


@click.group(name="fsat_kedro")
def cli() -> None:
    """Commands of the project."""


def _be_verbose(context: click.Context, option: click.Parameter, value: bool) -> None:
    KedroCliError.VERBOSE_ERROR = value


run.params.append(
    click.Option(
        ["--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_be_verbose,
        help="Show Kedro's own messages, and where in the code an error comes from.",
    )
)
cli.add_command(run)


@cli.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@env_option
@click.option(
    "--data-dir",
    help="Where the results of a training are; that of the environment if not given.",
)
@click.pass_obj
def tag(metadata: ProjectMetadata, files: list[Path], env: str | None, data_dir: str) -> None:
    """Tag sound files with the trained ensemble.

    A whole folder goes through `kedro run --pipelines tag --params tag_dir=FOLDER`.
    """
    from fsat_kedro.datasets.stored_dataset import tagger_at
    from fsat_kedro.hooks.progress import import_keras_quietly
    from fsat_kedro.inference.tagger import Sound, Tagger
    from fsat_kedro.pipeline_registry import configured_parameters
    from fsat_kedro.store import Store, folder_of, is_address

    import_keras_quietly()
    parameters = configured_parameters(env)
    address = data_dir or parameters["data_dir"]
    folder = Path(data_dir) if data_dir else metadata.project_path / address
    try:
        if is_address(address):
            folder = folder_of(address, metadata.project_path / parameters["cache_dir"])
            tagger_at(Store(address.rstrip("/"), folder)).fetch()
        tagger = Tagger.load(folder / "06_models")
        tags = tagger.tag([Sound(file.name, str(file.absolute())) for file in files])
    except InputError as error:
        raise click.ClickException(str(error)) from error
    for file, row in zip(files, tags.itertuples(index=False), strict=True):
        click.echo(f"{file}\n{_in_lines(row)}")


def _in_lines(row: "pd.Series") -> str:
    if row.reason:
        return f"  rejected: {row.reason}"
    ranked = [(row.tag_1, row.probability_1), (row.tag_2, row.probability_2)]
    ranked.append((row.tag_3, row.probability_3))
    return "\n".join(f"  {share:6.1%}  {label}" for label, share in ranked if share == share)
