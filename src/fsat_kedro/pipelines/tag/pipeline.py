"""Pipeline from a folder of sounds to their tags."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.tag import nodes


def create_pipeline() -> Pipeline:
    """List the sounds of a folder and tag them with the trained ensemble."""
    return Pipeline(
        [
            node(nodes.list_sounds, "params:tag_dir", "sounds", name="list_sounds"),
            node(
                nodes.tag_sounds,
                ["tagger", "sounds", "params:n_jobs", "params:spool_dir"],
                "tags",
                name="tag_sounds",
                tags="gpu",
            ),
        ]
    )
