"""The trained ensemble as an MLflow model. MLflow runs this file to load and serve it."""

import re
from functools import partial
from importlib.metadata import requires, version
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import mlflow
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from fsat_kedro.evaluation.metrics import N_TAGS
from fsat_kedro.inference.service import Limits, TaggingService, noise_in_base64
from fsat_kedro.inference.tagger import Tagger


class TaggerModel(PythonModel):
    """Tag sounds that arrive as bytes, or as paths in a folder that the server sets."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the ensemble."""
        limits = Limits.from_environment()
        folder = Path(context.artifacts["ensemble"])
        tagger = Tagger.load(folder, max_seconds=limits.max_seconds)
        self._service = TaggingService(tagger, limits)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Tag the sounds of a table with the columns fname and audio, see `TaggingService.tag`.

        Neither `context` nor `params` is used.
        """
        missing = pd.Series(None, model_input.index, object)
        columns = (model_input.get(name, missing) for name in ("fname", "audio"))
        return self._service.tag(zip(*columns, strict=True))


def log_model(ensemble: Path, *, run_id: str, name: str) -> None:
    """Log an ensemble to a run, and register it as the next version of the model `name`.

    `ensemble` is a local folder with what training writes to `06_models`.
    """
    tagger = Tagger.load(ensemble)
    tagger.prepare()
    optional = partial(ColSpec, required=False)
    # MLflow would refuse a whole request for a value of another type.
    inputs = Schema([optional(AnyType(), "fname"), optional(AnyType(), "audio")])
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "fname")]
    for rank in range(1, N_TAGS + 1):
        outputs += [optional("string", f"tag_{rank}"), optional("double", f"probability_{rank}")]
    outputs += [ColSpec("string", "reason"), ColSpec("string", "warning")]
    noise = pd.DataFrame({"fname": ["noise.wav"], "audio": [noise_in_base64()]})
    with TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id):
        # The model needs neither the histories nor the weights of stage mel.
        for file in tagger.files():
            target = Path(folder, "ensemble", file)
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(ensemble / file, target)
        mlflow.pyfunc.log_model(
            name="tagger",
            python_model=__file__,
            artifacts={"ensemble": str(Path(folder, "ensemble"))},
            code_paths=[str(Path(__file__).parents[1])],
            pip_requirements=_requirements(),
            signature=ModelSignature(inputs, Schema(outputs)),
            input_example=noise,
            registered_model_name=name,
        )


def _requirements() -> list[str]:
    """Return the packages of this project, with the versions that trained the ensemble."""
    lines = [line for line in requires("fsat_kedro") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]
    return [f"{name}=={version(name)}" for name in names]


set_model(TaggerModel())
