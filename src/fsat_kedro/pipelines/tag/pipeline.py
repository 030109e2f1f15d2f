"""Pipeline from a folder of sounds to their tags."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.tag import nodes


def create_pipeline(*, timeline: bool) -> Pipeline:
    """List the sounds of a folder and tag them with the trained ensemble.

    Args:
        timeline: whether to make a timeline of each, instead of three tags.
    """
    if timeline:
        tags = node(
            nodes.tag_recordings,
            ["tagger", "sounds", "params:tag", "params:n_jobs"],
            ["audacity_labels", "recordings", "recording_windows", "recording_segments"],
            name="tag_recordings",
            tags="gpu",
        )
    else:
        tags = node(
            nodes.tag_sounds,
            ["tagger", "sounds", "params:n_jobs", "params:spool_dir"],
            "tags",
            name="tag_sounds",
            tags="gpu",
        )
    listed = node(nodes.list_sounds, "params:tag_dir", "sounds", name="list_sounds")
    return Pipeline([listed, tags])
