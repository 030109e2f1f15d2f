"""Report of a run: one HTML page with scores, plots and playable clips.

The page opens without a network, because images and sounds are embedded.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import accumulate
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from fsat_kedro.evaluation.label_issues import undecided_issues
from fsat_kedro.evaluation.metrics import N_TAGS
from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified, rank_tags
from fsat_kedro.evaluation.previews import AudioPreview, PreviewedPredictions, data_uri
from fsat_kedro.parameters import Report

_PLOT_DPI = 150
_CSS_DPI = 96
_MAX_COLUMN_WIDTH = 700  # CSS pixels; a wider plot takes the width of the page.


def render_report(
    *,
    name: str,
    facts: Sequence[str],
    scores: Sequence[Mapping[str, object]],
    pairs: Sequence[Mapping[str, object]],
    plots: Sequence[Mapping[str, Any]],
    splits: Sequence[PreviewedPredictions],
    settings: Report,
) -> str:
    """Render the page as HTML.

    Args:
        name: title of the page.
        facts: about the run, a few words each.
        scores: for each set of clips, its name (clips) and `metrics.SCORES`.
        pairs: confused classes, most frequent first: true and predicted label, clips, fraction of
            the true class's clips.
        plots: from `embed_plot`, in the order of the page.
        splits: out-of-fold predictions of the training clips, then those of other splits.
        settings: limits of the page.
    """
    predictions = [split.predictions for split in splits]
    max_bytes = int(1e6 * settings.max_megabytes) - sum(len(plot["image"]) for plot in plots)
    issues = undecided_issues(predictions[0])
    cards = _issue_cards(issues.head(settings.max_clips), splits[0])
    # Half of the page, so that misclassified clips and exemplars have a place too.
    doubtful = _fitting(cards, max_bytes // 2)
    max_bytes -= sum(card["preview"].size for card in doubtful)
    tables = [find_misclassified(x) for x in predictions]
    # A clip is on the page once.
    rest = [tables[0][~tables[0]["row"].isin([card["row"] for card in doubtful])], *tables[1:]]
    heads = [table.head(settings.max_clips).assign(split=i) for i, table in enumerate(rest)]
    candidates = pd.concat(heads).sort_values("probability_1", ascending=False, kind="stable")
    cards = [_clip_card(clip, splits[clip["split"]]) for clip in candidates.to_dict("records")]
    misclassified = _fitting(cards, max_bytes)
    max_bytes -= sum(card["preview"].size for card in misclassified)
    return _render_template(
        name=name,
        facts=facts,
        scores=scores,
        pairs=pairs,
        plots=plots,
        doubtful=doubtful,
        n_issues=len(issues),
        corrections=_list_corrections(predictions[0].clips),
        misclassified=misclassified,
        n_left_out=sum(map(len, rest)) - len(misclassified),
        n_misclassified={
            x.name: (len(table), int((x.is_usable & x.is_labelled).sum()))
            for x, table in zip(predictions, tables, strict=True)
        },
        is_truncated=any(
            clip["seconds"] > clip["preview"].seconds for clip in (*doubtful, *misclassified)
        ),
        exemplars=_exemplars(splits[0], [*doubtful, *misclassified], max_bytes),
        is_verified_known=predictions[0].clips["verified"].notna().any(),
        labels=predictions[0].labels,
        settings=settings,
        n_tags=N_TAGS,
    )


def embed_plot(png: bytes, title: str, caption: str) -> dict[str, Any]:
    """Embed a figure that was saved as a PNG at 150 dots per inch; sizes are in CSS pixels."""
    with Image.open(io.BytesIO(png)) as image:
        width, height = (round(side / _PLOT_DPI * _CSS_DPI) for side in image.size)
    size = {"width": width, "height": height, "is_wide": width > _MAX_COLUMN_WIDTH}
    return {"title": title, "caption": caption, "image": data_uri("image/png", png), **size}


def _count_fitting(previews: Iterable[AudioPreview], max_bytes: int) -> int:
    """Count the first previews that fit into `max_bytes` together."""
    return sum(total <= max_bytes for total in accumulate(preview.size for preview in previews))


def _fitting(cards: list[dict], max_bytes: int) -> list[dict]:
    """Return the first cards whose previews fit into `max_bytes` together."""
    return cards[: _count_fitting((card["preview"] for card in cards), max_bytes)]


def _issue_cards(issues: pd.DataFrame, split: PreviewedPredictions) -> list[dict]:
    """Return what the page shows of clips with issues, rows of `find_label_issues`."""
    clips = rank_tags(split.predictions, issues["row"].to_numpy()).to_dict("records")
    pairs = zip(clips, issues["suggested"], strict=True)
    return [{**_clip_card(clip, split), "suggested": suggested} for clip, suggested in pairs]


def _list_corrections(clips: pd.DataFrame) -> list[dict[str, str]]:
    """Return file name, label ("" if it is dropped) and note of each clip with a correction."""
    if "correction" not in clips:
        return []
    corrected = clips.loc[clips["correction"] != "", ["fname", "label", "note"]].fillna("")
    return corrected.drop_duplicates("fname").to_dict("records")


def _clip_card(clip: dict, split: PreviewedPredictions) -> dict:
    """Return what the page shows of a clip, a row of `rank_tags`; the first tag is suggested."""
    tags = [
        {"label": clip[f"tag_{rank}"], "probability": clip[f"probability_{rank}"], "rank": rank}
        for rank in range(1, N_TAGS + 1)
        if not pd.isna(clip[f"tag_{rank}"])
    ]
    label = {key: None if pd.isna(clip[key]) else clip[key] for key in ("probability", "rank")}
    if label["rank"] is None or label["rank"] > len(tags):
        tags.append({"label": clip["label"], **label})
    return {
        **{key: clip[key] for key in ("row", "fname", "label", "fold", "seconds")},
        "verified": None if pd.isna(clip["verified"]) else bool(clip["verified"]),
        "split": split.predictions.name,
        "label_probability": label["probability"] or 0,
        "tags": tags,
        "suggested": tags[0]["label"],
        "is_correctable": split.predictions.folds is not None,
        "preview": split.previews[clip["row"]],
    }


def _exemplars(
    split: PreviewedPredictions, cards: Sequence[dict], max_bytes: int
) -> dict[str, dict]:
    """Return the exemplars by label, as many as fit.

    Those of the classes that occur most often among the tags of these clips come first.
    """
    labels, clips = split.predictions.labels, split.predictions.clips
    tags = [tag["label"] for card in cards for tag in card["tags"]]
    order = sorted(range(len(labels)), key=lambda index: -tags.count(labels[index]))
    rows = find_exemplars(split.predictions)
    n_exemplars = _count_fitting((split.previews[rows[index]] for index in order), max_bytes)
    return {
        labels[index]: {
            "index": index,
            "fname": clips["fname"].iloc[rows[index]],
            "probability": split.predictions.probabilities[rows[index], index],
            "preview": split.previews[rows[index]],
        }
        for index in sorted(order[:n_exemplars])
    }


def _render_template(**content: object) -> str:
    environment = Environment(
        loader=PackageLoader("fsat_kedro.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = format_percent
    templates = files("fsat_kedro.evaluation") / "templates"
    script, style = ((templates / f"report.{x}").read_text("utf-8") for x in ("js", "css"))
    # The page's policy allows this script only, whatever markup a label contains.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("report.html.jinja")
    return page.render(script=script, digest=digest, style=style, **content)


def format_percent(fraction: float) -> str:
    """Format a probability so that only an exact 0 or 1 is shown as 0 or 100 %."""
    if 0 < fraction < 0.001:
        return "<0.1%"
    if 0.999 < fraction < 1:
        return ">99.9%"
    return f"{fraction:.1%}" if fraction < 0.01 or fraction > 0.99 else f"{fraction:.0%}"
