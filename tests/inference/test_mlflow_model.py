from importlib.metadata import version
from types import SimpleNamespace

import pandas as pd
import pytest

from fsat_kedro.inference import mlflow_model
from fsat_kedro.inference.mlflow_model import TaggerModel, _requirements


@pytest.mark.parametrize("columns", [["fname"], ["fname", "audio"], ["audio"], []])
def test_a_table_of_any_columns_is_a_request(monkeypatch, columns):
    loaded, requests = [], []
    monkeypatch.setenv("FSAT_KEDRO_MAX_SECONDS", "9")
    monkeypatch.setattr(
        mlflow_model.Tagger, "load", lambda folder, **settings: loaded.append(settings)
    )
    monkeypatch.setattr(
        mlflow_model,
        "TaggingService",
        lambda tagger, limits: SimpleNamespace(tag=lambda rows: requests.extend(rows)),
    )
    model = TaggerModel()
    model.load_context(SimpleNamespace(artifacts={"ensemble": "folder"}))
    assert loaded == [{"max_seconds": 9}]
    table = pd.DataFrame([["a.wav", "x"], ["b.wav", None]], columns=["fname", "audio"])
    model.predict(None, table[columns])
    found = pd.DataFrame(requests, columns=table.columns, dtype=object)
    expected = table.astype(object).where([[name in columns for name in table]] * 2)
    pd.testing.assert_frame_equal(found, expected)


def test_requirements_are_the_installed_versions_without_extras():
    requirements = _requirements()
    assert f"keras=={version('keras')}" in requirements
    assert f"click=={version('click')}" in requirements
    assert not any(line.startswith(("distributed", "pytest")) for line in requirements)
