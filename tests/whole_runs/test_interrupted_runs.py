"""A whole run that is killed."""

import shutil

import numpy as np
from kill_and_resume import differences, kill_and_resume, make_project

from fsat_kedro.data.synthetic import LABELS
from whole_runs import SHORT


def test_a_run_killed_while_it_trains_is_finished_by_the_next_as_if_nothing_had_been(
    finished_demo, tmp_path
):
    project = make_project(tmp_path / "killed")
    outputs = project / "data" / "demo"
    demo = finished_demo.outputs
    # An earlier run left outputs, which must not be taken for this one's.
    shutil.copytree(demo, outputs)
    shutil.copy(outputs / "06_models/fold_1/mel.weights.h5", outputs / "06_models/fold_2")
    np.save(outputs / "07_model_output" / "fold_2" / "oof.npy", np.zeros((24, len(LABELS))))
    checkpoint = outputs / "06_models" / "fold_2" / "mel.checkpoint.npz"
    parameters = ",".join(f"{name}={value}" for name, value in SHORT.items())
    assert kill_and_resume(project, checkpoint.exists, "--params", parameters)
    log = (project / "run.log").read_text()
    assert "fold_2 mel: resumes after epoch 1" in log
    assert differences(demo, outputs) == []
    assert not checkpoint.exists()
