"""Pipeline of the features: computed for every split, fitted on train only."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.features import nodes


def create_pipeline(splits: list[str]) -> Pipeline:
    """Compute the features of each split, fit statistics and PCA on train, project all splits."""
    fit = Pipeline(
        [
            node(
                nodes.fit_mel_statistics,
                ["train_mels", "params:crop_lengths", "params:log_mel"],
                "mel_statistics",
                name="fit_mel_statistics",
            ),
            node(
                nodes.fit_summary_projector,
                ["train_summary", "params:pca"],
                "projector",
                name="fit_summary_projector",
            ),
        ],
        namespace="features.fit",
        inputs={"train_mels", "train_summary"},
        outputs={"mel_statistics", "projector"},
        parameters={"crop_lengths", "log_mel", "pca"},
    )
    project = Pipeline(
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
    return sum((_split_pipeline(split) for split in splits), fit + project)


def _split_pipeline(split: str) -> Pipeline:
    return Pipeline(
        [
            node(
                nodes.compute_log_mels,
                ["audio", "clips", "params:log_mel", "params:n_jobs", "params:spool_dir"],
                "mels",
                name="compute_log_mels",
            ),
            node(
                nodes.compute_summary_features,
                ["audio", "clips", "params:n_jobs"],
                "summary",
                name="compute_summary_features",
            ),
        ],
        namespace=f"features.{split}",
        inputs={name: f"{split}_{name}" for name in ("audio", "clips")},
        outputs={name: f"{split}_{name}" for name in ("mels", "summary")},
        parameters={"log_mel", "n_jobs", "spool_dir"},
    )
