"""Write `configuration.md`: every parameter with its default and its description.

    python docs/write_configuration.py

The descriptions come from `src/fsat_kedro/parameters.py`, the defaults from `conf/base`.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from pydantic import BaseModel

from fsat_kedro.parameters import Parameters

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Every parameter, with its default in `conf/base` (of `demo`, in `conf/demo`) and its description. \
`conf/demo`, `conf/esc50` and `conf/audioset` (`--env demo` and so on) change some of them. To set \
parameters on the command line: `--params training.batch_size=32,seed=1`. An unknown name or a \
wrong value is an error before anything runs.

`conf/base/mlflow.yml` says where MLflow writes and which parameters it logs. \
`conf/base/catalog.yml` says where each output is and what MLflow logs of it.
"""


def page() -> str:
    """Return the text of the page."""
    # The parameters only refer to globals.yml.
    values = _read("base", "parameters*.yml") | _read("base", "globals.yml")
    values["demo"] = _read("demo", "parameters*.yml")["demo"]
    lines = [HEAD]
    groups = {name: field for name, field in Parameters.model_fields.items() if _model(field)}
    single = {name: values[name] for name in Parameters.model_fields if name not in groups}
    lines += ["## General", "", *_table(_rows(Parameters, single, ""))]
    for name, field in groups.items():
        model = _model(field)
        lines += [f"## {name}", "", model.__doc__.splitlines()[0], ""]
        lines += _table(_rows(model, values[name], f"{name}."))
    return "\n".join(lines).rstrip() + "\n"


def _read(environment: str, files: str) -> dict:
    """Read the values in the files of an environment, without resolving references."""
    values = {}
    for file in sorted((ROOT / "conf" / environment).glob(files)):
        values |= OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return values


def _model(field: object) -> type[BaseModel] | None:
    """Return the class of a group of parameters, also of an optional one; None for others."""
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[0] if models else None


def _rows(model: type[BaseModel], values: dict, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        group = _model(field)
        if group is None:
            if name in values:
                yield f"`{prefix}{name}`", _format_value(values[name]), field.description
        elif prefix:
            yield from _rows(group, values[name], f"{prefix}{name}.")


def _format_value(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).replace("...", "")
    return f"`{text.strip()}`"


def _table(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    head = ["| parameter | default | description |", "|---|---|---|"]
    body = [f"| {key} | {value} | {' '.join(words.split())} |" for key, value, words in rows]
    return [*head, *body, ""]


if __name__ == "__main__":
    PAGE.write_text(page())
