"""The trained ensemble as an MLflow model. MLflow runs this file to load and serve it."""

import os
import re
from base64 import b64decode, b64encode
from functools import partial
from importlib.metadata import requires, version
from io import BytesIO
from math import isnan
from pathlib import Path
from shutil import copyfile
from stat import S_ISREG
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
import soundfile
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from fsat_kedro.errors import InputError
from fsat_kedro.evaluation.metrics import N_TAGS
from fsat_kedro.inference.tagger import Sound, Tagger, model_files

SOUNDS_DIR = "FSAT_KEDRO_SOUNDS_DIR"
"""Environment variable with the folder whose files a served model may read."""

_MAX_NAME_BYTES = 1000


class Limits(NamedTuple):
    """What a served model accepts. Environment variables set it, such as `FSAT_KEDRO_MAX_ROWS`.

    Attributes:
        max_rows: sounds of a request.
        max_megabytes: of a sound's file.
        max_seconds: of a sound that are used; the rest is not read.
    """

    max_rows: float = 100
    max_megabytes: float = 20
    max_seconds: float = 60

    @classmethod
    def from_environment(cls) -> "Limits":
        """Read the limits.

        Raises:
            InputError: a variable is not a positive number.
        """
        limits = {}
        for name, default in cls._field_defaults.items():
            variable = f"FSAT_KEDRO_{name.upper()}"
            text = os.environ.get(variable, str(default))
            try:
                limits[name] = float(text)
            except ValueError:
                limits[name] = 0
            if not limits[name] > 0:
                raise InputError(f"{variable} is {text!r}: set it to a positive number")
        return cls(**limits)


class TaggerModel(PythonModel):
    """Tag sounds that arrive as bytes, or as paths in a folder that the server sets."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the ensemble, and tag some noise, so that the first request does not wait."""
        self._limits = Limits.from_environment()
        folder = Path(context.artifacts["ensemble"])
        self._tagger = Tagger.load(folder, max_seconds=self._limits.max_seconds)
        self._tagger.tag([Sound("noise.wav", _noise())])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        """Tag the sounds of a table, and return the table of `Tagger.tag`.

        A row of `model_input` is a sound: `fname` is the name of its file, and `audio` the bytes
        of the file in base64. Without `audio`, `fname` is a path in the folder that the environment
        variable `FSAT_KEDRO_SOUNDS_DIR` names. A row that cannot be used gets a reason. Neither
        `context` nor `params` is used.
        """
        if len(model_input) == 0:
            return pd.DataFrame()
        missing = pd.Series(None, model_input.index, object)
        rows = zip(*(model_input.get(name, missing) for name in ("fname", "audio")), strict=True)
        sounds = [_sound(*row, max_bytes=self._limits.max_megabytes * 1e6) for row in rows]
        if len(sounds) > self._limits.max_rows:
            reason = f"the request has {len(sounds)} rows, more than {self._limits.max_rows:g}"
            sounds = [Sound(sound.name, b"", reason) for sound in sounds]
        tags = self._tagger.tag(sounds)
        # JSON has no NaN.
        return tags.astype(object).where(tags.notna(), None)


def log_model(ensemble: Path, *, run_id: str, name: str) -> None:
    """Log an ensemble to a run, and register it as the next version of the model `name`.

    `ensemble` is a local folder with what training writes to `06_models`.
    """
    n_folds = Tagger.load(ensemble).settings.n_folds
    optional = partial(ColSpec, required=False)
    # MLflow would refuse a whole request for a value of another type.
    inputs = Schema([optional(AnyType(), "fname"), optional(AnyType(), "audio")])
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "fname")]
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


def _sound(fname: object, audio: object, *, max_bytes: float) -> Sound:
    """Return the sound of a row, or the reason why it cannot be read."""
    if not isinstance(fname, str):
        return Sound("", b"", "its fname is not a string")
    # JSON may hold halves of characters, which no file name has.
    name = fname.encode(errors="backslashreplace").decode()
    if "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
        return Sound("", b"", f"its fname has a NUL, or more than {_MAX_NAME_BYTES} bytes")
    too_large = f"its file is larger than {max_bytes / 1e6:g} MB"
    if isinstance(audio, str):
        if len(audio) * 3 // 4 - audio[-2:].count("=") > max_bytes:
            return Sound(name, b"", too_large)
        try:
            return Sound(Path(name).name, b64decode(audio, validate=True))
        except ValueError as error:
            return Sound(name, b"", f"its audio is not in base64: {error}")
    # Pandas has NaN for what a row lacks and another has.
    if audio is not None and not (isinstance(audio, float) and isnan(audio)):
        return Sound(name, b"", "its audio is not a string")
    folder = os.environ.get(SOUNDS_DIR)
    if folder is None:
        return Sound(name, b"", f"it has no audio, and the server does not set {SOUNDS_DIR}")
    root = os.path.realpath(folder)
    path = Path(os.path.realpath(Path(root, name)))
    if not path.is_relative_to(root):
        return Sound(name, b"", f"not below the server's {SOUNDS_DIR}")
    try:
        status = path.stat()
    except OSError:  # It does not exist, or a name is too long.
        status = None
    if status is None or not S_ISREG(status.st_mode):
        return Sound(name, b"", f"not a file in the server's {SOUNDS_DIR}")
    if status.st_size > max_bytes:
        return Sound(name, b"", too_large)
    return Sound(name, str(path))


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
