"""The trained ensemble as an MLflow model. MLflow runs this file to load and serve it."""

import os
import re
from base64 import b64decode, b64encode
from functools import partial
from importlib.metadata import requires, version
from io import BytesIO
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import pandas as pd
import soundfile
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec

from fsat_kedro.evaluation.metrics import N_TAGS
from fsat_kedro.inference.tagger import Sound, Tagger, model_files

SOUNDS_DIR = "FSAT_KEDRO_SOUNDS_DIR"
"""Environment variable with the folder whose files a served model may read."""


class TaggerModel(PythonModel):
    """Tag sounds that arrive as bytes, or as paths in a folder that the server sets."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the ensemble, and tag some noise, so that the first request does not wait."""
        self._tagger = Tagger.load(Path(context.artifacts["ensemble"]))
        self._tagger.tag([Sound("noise.wav", _noise())])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Tag the sounds of a table, and return the table of `Tagger.tag`.

        A row of `model_input` is a sound: `fname` is the name of its file, and `audio` the bytes
        of the file in base64. Without `audio`, `fname` is a path in the folder that the environment
        variable `FSAT_KEDRO_SOUNDS_DIR` names. Neither `context` nor `params` is used.
        """
        audio = model_input.get("audio", pd.Series(None, model_input.index, object))
        names = model_input["fname"].astype(str)
        tags = self._tagger.tag([_sound(*row) for row in zip(names, audio, strict=True)])
        # JSON has no NaN.
        return tags.astype(object).where(tags.notna(), None)


def log_model(ensemble: Path, *, run_id: str, name: str) -> None:
    """Log an ensemble to a run, and register it as the next version of the model `name`.

    `ensemble` is a local folder with what training writes to `06_models`.
    """
    n_folds = Tagger.load(ensemble).settings.n_folds
    fname, optional = ColSpec("string", "fname"), partial(ColSpec, required=False)
    inputs = Schema([fname, optional("string", "audio")])
    outputs: list[ColSpec | TensorSpec] = [fname]
    for rank in range(1, N_TAGS + 1):
        outputs += [optional("string", f"tag_{rank}"), optional("double", f"probability_{rank}")]
    outputs += [ColSpec("string", "reason"), ColSpec("string", "warning")]
    noise = pd.DataFrame({"fname": ["noise.wav"], "audio": [b64encode(_noise()).decode()]})
    with TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id):
        # The model needs neither the histories nor the weights of stage mel.
        for file in model_files(n_folds):
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


def _sound(fname: str, audio: object) -> Sound:
    """Return the sound of a row, or the reason why it cannot be read."""
    if isinstance(audio, str):
        try:
            return Sound(Path(fname).name, b64decode(audio, validate=True))
        except ValueError as error:
            return Sound(fname, b"", f"its audio is not in base64: {error}")
    folder = os.environ.get(SOUNDS_DIR)
    if folder is None:
        return Sound(fname, b"", f"it has no audio, and the server does not set {SOUNDS_DIR}")
    root = os.path.realpath(folder)
    path = Path(os.path.realpath(Path(root, fname)))
    if not path.is_relative_to(root):
        return Sound(fname, b"", f"not below the server's {SOUNDS_DIR}")
    if not path.is_file():
        return Sound(fname, b"", f"not a file in the server's {SOUNDS_DIR}")
    return Sound(fname, str(path))


def _noise() -> bytes:
    """Return a WAV file."""
    file = BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 2000)
    soundfile.write(file, noise, 8000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _requirements() -> list[str]:
    """Return the packages of this project, with the versions that trained the ensemble."""
    lines = [line for line in requires("fsat_kedro") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]
    return [f"{name}=={version(name)}" for name in names]


set_model(TaggerModel())
