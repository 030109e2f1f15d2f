"""Kill runs at random moments, resume them, and compare their outputs with an undisturbed run.

As a command: `python tests/whole_runs/kill_and_resume.py --kills 20 FOLDER`, with an empty folder
to work in. Parameters of `kedro run` may follow, such as `demo.n_train=24`. Every second kill hits
a training in a folder that has the results of another one. Between a kill and the second run,
`kedro tag` has to refuse, or to give the tags of one of the two trainings.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[2]
KEDRO = [sys.executable, "-m", "kedro"]


def make_project(folder: Path) -> Path:
    """Copy the project without its data to a new folder, and return the folder."""
    folder.mkdir(parents=True)
    for name in ("conf", "src", "notebooks"):
        ignored = shutil.ignore_patterns("local", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "conf" / "local").mkdir()
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder)
    return folder


def start(project: Path, *arguments: str) -> subprocess.Popen:
    """Start a run of the demo in a project, with its output in `run.log` there."""
    command = [*KEDRO, "run", "--env", "demo", *arguments]
    with (project / "run.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=project, env=_environment(project), stdout=log, stderr=log
        )


def tag(project: Path, sounds: list[Path]) -> subprocess.CompletedProcess:
    """Tag sounds with the ensemble of a project."""
    command = [*KEDRO, "tag", "--env", "demo", *map(str, sounds)]
    return subprocess.run(
        command, cwd=project, env=_environment(project), capture_output=True, text=True
    )


def _environment(project: Path) -> dict[str, str]:
    return {**os.environ, "DO_NOT_TRACK": "true", "PYTHONPATH": str(project / "src")}


def kill_and_resume(
    project: Path,
    is_time: Callable[[], bool],
    *arguments: str,
    between: Callable[[], None] = lambda: None,
) -> bool:
    """Start a run, kill -9 it when `is_time` returns true, and finish it with a second run.

    `between` is called between the two.

    Returns:
        Whether the run was still going when it was killed.

    Raises:
        AssertionError: the second run fails.
    """
    process = start(project, *arguments)
    while process.poll() is None and not is_time():
        time.sleep(0.05)
    process.kill()
    killed = process.wait() == -signal.SIGKILL
    between()
    resumed = start(project, "--only-missing-outputs", *arguments)
    assert resumed.wait() == 0, (project / "run.log").read_text()
    return killed


def differences(expected: Path, found: Path) -> list[str]:
    """List the differences between the outputs of two runs below their data folders."""
    names = [
        {str(path.relative_to(folder)) for path in folder.rglob("*") if _is_output(path)}
        for folder in (expected, found)
    ]
    different = [f"{name} is in one of them only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if not _equal(expected / name, found / name):
            different.append(f"{name} differs")
    return different


def _is_output(path: Path) -> bool:
    # Converted networks are a cache, and name the files of weights that they come from.
    hidden = {".locks", ".saved", ".unfinished"} & set(path.parts)
    return path.is_file() and not hidden and not path.name.endswith(".openvino.zip")


def _equal(one: Path, other: Path) -> bool:
    if one.suffix == ".h5":
        return _equal_weights(one, other)
    if one.suffix == ".npy":
        return np.array_equal(np.load(one), np.load(other), equal_nan=True)
    if one.suffix == ".pkl":
        one, other = (pd.read_pickle(path) for path in (one, other))
        if isinstance(one, pd.DataFrame):
            # Each run has its raw clips in a folder of its own.
            return one.drop(columns="path", errors="ignore").equals(
                other.drop(columns="path", errors="ignore")
            )
        return str(one) == str(other)
    if one.name.endswith("_history.csv"):
        one, other = (pd.read_csv(path).drop(columns="seconds") for path in (one, other))
        return one.equals(other)
    if one.name == "tagger.json":
        return _described(one) == _described(other)
    return one.read_bytes() == other.read_bytes()


def _described(path: Path) -> dict:
    """Read the description of an ensemble, without the digests of its weights.

    Keras writes the numbers of layers into the files of weights: how many networks a process has
    built before.
    """
    content = json.loads(path.read_text())
    parts = content["digests"].items()
    content["digests"] = {name: digest for name, digest in parts if not name.endswith(".h5")}
    return content


def _equal_weights(one: Path, other: Path) -> bool:
    arrays: list[dict[str, np.ndarray]] = []
    for path in (one, other):
        found: dict[str, np.ndarray] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item, found=found: (
                    found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
        arrays.append(found)
    return arrays[0].keys() == arrays[1].keys() and all(
        np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items()
    )


def _copy_sounds(project: Path, folder: Path) -> list[Path]:
    """Copy three test clips of a project to a new folder, and return their paths."""
    folder.mkdir()
    clips = sorted((project / "data" / "demo" / "01_raw" / "FSDKaggle2018.audio_test").iterdir())
    whole = [clip for clip in clips if clip.stat().st_size > 1000]
    return [Path(shutil.copy(clip, folder)) for clip in whole[:3]]


def main() -> None:
    """Kill and resume runs, and print the result of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parameters", nargs="*")
    options = parser.parse_intermixed_args()
    arguments = ["--params", ",".join(options.parameters)] if options.parameters else []
    # Another training, which the outputs of every second killed run have to replace.
    other = ["--params", ",".join([*options.parameters, "seed=1"])]
    used = make_project(options.folder / "used")
    assert start(used, *other).wait() == 0, (used / "run.log").read_text()
    undisturbed = make_project(options.folder / "undisturbed")
    began = time.monotonic()
    assert start(undisturbed, *arguments).wait() == 0, (undisturbed / "run.log").read_text()
    duration = time.monotonic() - began
    print(f"undisturbed: {duration:.0f} s", flush=True)
    sounds = _copy_sounds(undisturbed, options.folder / "sounds")
    right = {tag(project, sounds).stdout for project in (used, undisturbed)}
    assert len(right) == 2, right
    moments = random.Random(options.seed)
    failed = 0
    for number in range(1, options.kills + 1):
        seconds = moments.uniform(0, duration)
        project = options.folder / f"killed_{number}"
        if number % 2:
            make_project(project)
        else:
            shutil.copytree(used, project)
        tagged = []
        moment = time.monotonic() + seconds
        killed = kill_and_resume(
            project,
            lambda: time.monotonic() > moment,  # noqa: B023
            *arguments,
            between=lambda: tagged.append(tag(project, sounds)),  # noqa: B023
        )
        found = differences(undisturbed / "data" / "demo", project / "data" / "demo")
        (between,) = tagged
        if between.returncode == 0 and between.stdout not in right:
            found.append(f"between the runs, the tags were those of no training: {between.stdout}")
        failed += bool(found)
        what = "killed" if killed else "ended by itself before"
        where = "a new folder" if number % 2 else "a used folder"
        tags = "tagged" if between.returncode == 0 else "refused to tag"
        print(
            f"{number}: {what} after {seconds:.1f} s in {where}, {tags}: {found or 'equal'}",
            flush=True,
        )
        if not found:
            shutil.rmtree(project)
    print(f"{options.kills - failed} of {options.kills} equal the undisturbed run")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
