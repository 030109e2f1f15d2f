"""Pipeline of the features: computed for every split, fitted on train only."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.features import nodes


def create_pipeline(splits: list[str], *, summary_features: bool) -> Pipeline:
    """Compute the features of each split, fit statistics and PCA on train, project all splits."""
    pipeline = _fit_mel_statistics() + sum(map(_log_mels, splits), Pipeline([]))
    if not summary_features:
        return pipeline
    fit, project = _fit_projector(), _project(splits)
    return pipeline + sum(map(_summary_features, splits), fit + project)


def _fit_mel_statistics() -> Pipeline:
    fit = node(
        nodes.fit_mel_statistics,
        ["train_mels", "params:crop_lengths", "params:log_mel"],
        "mel_statistics",
        name="fit_mel_statistics",
    )
    return Pipeline(
        [fit],
        namespace="features.fit",
        inputs={"train_mels"},
        outputs={"mel_statistics"},
        parameters={"crop_lengths", "log_mel"},
    )


def _fit_projector() -> Pipeline:
    fit = node(
        nodes.fit_summary_projector,
        ["train_summary", "params:pca"],
        "projector",
        name="fit_summary_projector",
    )
    return Pipeline(
        [fit],
        namespace="features.fit",
        inputs={"train_summary"},
        outputs={"projector"},
        parameters={"pca"},
    )


def _project(splits: list[str]) -> Pipeline:
    return Pipeline(
        [
            node(
                nodes.project_summary_features,
                [f"{split}_summary", "projector"],
                f"{split}_components",
                name=f"project_{split}_summary",
            )
            for split in splits
        ],
        namespace="features.project",
        inputs={"projector", *(f"{split}_summary" for split in splits)},
        outputs={f"{split}_components" for split in splits},
    )


def _log_mels(split: str) -> Pipeline:
    compute = node(
        nodes.compute_log_mels,
        ["audio", "clips", "params:log_mel", "params:n_jobs", "params:spool_dir"],
        "mels",
        name="compute_log_mels",
    )
    return Pipeline(
        [compute],
        namespace=f"features.{split}",
        inputs={name: f"{split}_{name}" for name in ("audio", "clips")},
        outputs={"mels": f"{split}_mels"},
        parameters={"log_mel", "n_jobs", "spool_dir"},
    )


def _summary_features(split: str) -> Pipeline:
    compute = node(
        nodes.compute_summary_features,
        ["audio", "clips", "params:n_jobs"],
        "summary",
        name="compute_summary_features",
    )
    return Pipeline(
        [compute],
        namespace=f"features.{split}",
        inputs={name: f"{split}_{name}" for name in ("audio", "clips")},
        outputs={"summary": f"{split}_summary"},
        parameters={"n_jobs"},
    )
