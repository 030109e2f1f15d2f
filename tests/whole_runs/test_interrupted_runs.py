"""A complete run that is killed."""

import re
import shutil

import numpy as np
from kill_and_resume import differences, kill_and_resume

from fsat_kedro.data.synthetic import LABELS
from whole_runs import TINY, make_tiny_project


def test_the_run_after_a_killed_one_ends_with_the_outputs_of_an_undisturbed_run(
    finished_tiny_demo, tmp_path
):
    project = make_tiny_project(tmp_path / "killed")
    outputs = project / "data" / "demo"
    demo = finished_tiny_demo.outputs
    # Outputs of an earlier run, which the second run must not take for its own.
    shutil.copytree(demo, outputs)
    shutil.copy(outputs / "06_models/fold_1/mel.weights.h5", outputs / "06_models/fold_2")
    np.save(outputs / "07_model_output" / "fold_2" / "oof.npy", np.zeros((24, len(LABELS))))
    checkpoint = outputs / "06_models" / "fold_2" / "mel.checkpoint.npz"
    parameters = ",".join(f"{name}={value}" for name, value in TINY.items())
    assert kill_and_resume(project, checkpoint.exists, "--params", parameters)
    log = (project / "run.log").read_text()
    assert re.search("fold_2 mel: resumes after epoch [1-5]", log)
    assert differences(demo, outputs) == []
    assert not checkpoint.exists()
