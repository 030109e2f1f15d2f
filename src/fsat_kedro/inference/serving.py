"""The trained ensemble as MLflow keeps and serves it. MLflow runs this file to load the model."""

import os
from base64 import b64decode, b64encode
from importlib.metadata import requires, version
from io import BytesIO
from pathlib import Path
from re import match
from shutil import copyfile
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import pandas as pd
import soundfile
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema

from fsat_kedro.evaluation.metrics import N_TAGS
from fsat_kedro.inference.tagger import Sound, Tagger, model_files

SOUNDS_DIR = "FSAT_KEDRO_SOUNDS_DIR"
"""Variable of the environment: the folder whose files a served model may read."""

_PACKAGE = Path(__file__).parents[1]


class TaggerModel(PythonModel):
    """Tags sounds that come as bytes, or as paths below a folder that the server names."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the ensemble, and have it tag some noise, so that the first sound does not wait."""
        self._tagger = Tagger.load(Path(context.artifacts["ensemble"]))
        self._tagger.tag([Sound("noise.wav", _noise())])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Tag the sounds of a table.

        Args:
            context: MLflow's.
            model_input: a row a sound: `fname`, its file name; and `audio`, the bytes of the
                file in base64. Where these are missing, `fname` is a path in the folder that the
                variable `FSAT_KEDRO_SOUNDS_DIR` names.
            params: none.

        Returns:
            As `Tagger.tag`; a sound that cannot be used has its reason, and all others their tags.
        """
        audio = model_input.get("audio", pd.Series(None, model_input.index, object))
        names = model_input["fname"].astype(str)
        tags = self._tagger.tag([_sound(*row) for row in zip(names, audio, strict=True)])
        # What is missing has to be so in JSON too.
        return tags.astype(object).where(tags.notna(), None)


def log_model(ensemble: Path, *, run_id: str, name: str) -> None:
    """Log the ensemble in a folder to a run, and register it as the next version of a model.

    Args:
        ensemble: what training leaves in `06_models`.
        run_id: of the run.
        name: of the registered model.
    """
    n_folds = Tagger.load(ensemble).settings.n_folds
    strings = [f"tag_{place}" for place in range(1, N_TAGS + 1)]
    shares = [f"probability_{place}" for place in range(1, N_TAGS + 1)]
    outputs = [ColSpec("string", "fname")]
    for tag, share in zip(strings, shares, strict=True):
        outputs += [
            ColSpec("string", tag, required=False),
            ColSpec("double", share, required=False),
        ]
    outputs += [ColSpec("string", "reason"), ColSpec("string", "warning")]
    inputs = [ColSpec("string", "fname"), ColSpec("string", "audio", required=False)]
    with TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id):
        # Of the folder, what the ensemble needs: histories and stage mel stay behind.
        for file in model_files(n_folds):
            copied = Path(folder, "ensemble", file)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copyfile(ensemble / file, copied)
        mlflow.pyfunc.log_model(
            name="tagger",
            python_model=__file__,
            artifacts={"ensemble": str(Path(folder, "ensemble"))},
            code_paths=[str(_PACKAGE)],
            pip_requirements=_requirements(),
            signature=ModelSignature(Schema(inputs), Schema(outputs)),
            input_example=pd.DataFrame(
                {"fname": ["noise.wav"], "audio": [b64encode(_noise()).decode()]}
            ),
            registered_model_name=name,
        )


def _sound(name: str, audio: object) -> Sound:
    if isinstance(audio, str):
        try:
            return Sound(Path(name).name, b64decode(audio, validate=True))
        except ValueError as error:
            return Sound(name, b"", f"its audio is not in base64: {error}")
    folder = os.environ.get(SOUNDS_DIR)
    if folder is None:
        return Sound(name, b"", f"no audio came with it, and the server has no {SOUNDS_DIR}")
    root = os.path.realpath(folder)
    path = Path(os.path.realpath(Path(root, name)))
    if not path.is_relative_to(root):
        return Sound(name, b"", f"not below the server's {SOUNDS_DIR}")
    if not path.is_file():
        return Sound(name, b"", f"not there in the server's {SOUNDS_DIR}")
    return Sound(name, str(path))


def _noise() -> bytes:
    """A sound file."""
    file = BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 2000)
    soundfile.write(file, noise, 8000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _requirements() -> list[str]:
    """The versions that the ensemble was trained with."""
    named = [
        match(r"[\w.-]+", line)[0] for line in requires("fsat_kedro") if "extra ==" not in line
    ]
    return [f"{name}=={version(name)}" for name in named]


set_model(TaggerModel())
