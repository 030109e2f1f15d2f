"""The page of `kedro app`: tag sounds with a trained ensemble, and correct training labels.

Axes: n samples, t frames, m mel bands.
"""

import logging
import os
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fsat_kedro.audio.decoding import SAMPLE_RATE, UnusableClipError, decode
from fsat_kedro.audio.log_mel import band_centers, decibels, log_mel
from fsat_kedro.data.label_corrections import TABLE
from fsat_kedro.data.raw_files import open_raw_file, printable
from fsat_kedro.datasets import RaggedDataset
from fsat_kedro.datasets.table_dataset import spreadsheet_csv
from fsat_kedro.errors import InputError, UnreadableError
from fsat_kedro.evaluation.label_review import LabelReview
from fsat_kedro.evaluation.previews import encode_audio, encode_mel
from fsat_kedro.evaluation.report import format_percent
from fsat_kedro.files import is_url
from fsat_kedro.hooks.locks import lock
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.inference.tagger import Sound, Tagger
from fsat_kedro.inference.timeline import Timeline, audacity_labels, tag_recording
from fsat_kedro.parameters import LogMel, Tag

MAX_SECONDS = 60
"""The tags are those of the first minute of a sound; its timeline has all of it."""

_MAX_MEGABYTES = 300
_MAX_DRAWN_SECONDS = 600
_CHUNK_SECONDS = 10
_MAX_COLUMNS = 640
_MAX_ROWS = 200
_MAX_LANES = 6
_TIMELINE_WINDOWS = 3
"""A sound of more windows than this gets a timeline."""
_FREQUENCIES = {200: "200 Hz", 1000: "1 kHz", 4000: "4 kHz", 10_000: "10 kHz"}
_TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_KEEP, _SUGGESTED, _OTHER, _DROP = "keep", "suggested", "other", "drop"
_DELETE_AFTER = 3600  # Seconds.


class Picture(NamedTuple):
    """A spectrogram with its axes.

    Attributes:
        image: data URI.
        seconds: length of what is drawn.
        times: ticks, each a fraction of the axis and a text.
        frequencies: ticks.
        caption: what is drawn.
    """

    image: str
    seconds: float
    times: list[tuple[float, str]]
    frequencies: list[tuple[float, str]]
    caption: str


def serve_page(
    tagger: Tagger,
    settings: Tag,
    review: LabelReview | str,
    *,
    name: str,
    command: str,
    host: str,
    port: int,
    open_browser: bool,
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        tagger: an ensemble.
        settings: of the timeline of long sounds.
        review: the doubtful labels, or why there are none to correct.
        name: title of the page.
        command: that trains with corrected labels.
        host: address to listen on.
        port: port to listen on.
        open_browser: whether to open the page in a browser.
    """
    with tempfile.TemporaryDirectory(prefix="fsat_kedro_app_") as folder:
        # Gradio keeps uploads here; they end with the server.
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(tagger, settings, review, name=name, command=command)
        Server(make_app(page, host), host, port, open_browser=open_browser).run()


class Server(uvicorn.Server):
    """A server that can open its page in a browser once it listens."""

    def __init__(self, app: FastAPI, host: str, port: int, *, open_browser: bool) -> None:
        # An open page keeps a connection: do not wait for it at the end.
        super().__init__(
            uvicorn.Config(
                app, host=host, port=port, log_level="error", timeout_graceful_shutdown=2
            )
        )
        self._url = f"http://{host}:{port}" if open_browser else None

    async def startup(self, sockets: Any = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        if self._url and self.started:
            import webbrowser

            webbrowser.open(self._url)

    async def shutdown(self, sockets: Any = None) -> None:
        """End, without a traceback for each page that is still open."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def make_app(page: gr.Blocks, host: str) -> FastAPI:
    """Return an application with the page alone."""
    no_pages: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**no_pages)
    if host in _LOOPBACK:
        # A web site whose name leads here must not reach the page.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK])
    css = (files("fsat_kedro") / "templates/app.css").read_text("utf-8")
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        css=css,
        app_kwargs=no_pages,
        theme=_theme(),
        footer_links=[],
        run_history=False,
        max_file_size=f"{_MAX_MEGABYTES}mb",
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
    )


_LOOPBACK = ("127.0.0.1", "localhost")


def _theme() -> gr.themes.Base:
    """Return the theme, with fonts of the system."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="gray",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="#f4f5f7",
        body_background_fill_dark="#121519",
        body_text_color="#1f252d",
        body_text_color_dark="#e5e8ec",
        button_primary_background_fill="#2d5f99",
        button_primary_background_fill_hover="#244d7d",
        button_primary_background_fill_dark="#2d5f99",
        button_primary_background_fill_hover_dark="#3a72b3",
        button_primary_text_color="#fff",
        button_secondary_background_fill="#fff",
        button_secondary_background_fill_hover="#e3eaf3",
        button_secondary_background_fill_dark="#1c2127",
        button_secondary_background_fill_hover_dark="#2b3a4c",
        button_secondary_border_color="#d5d9df",
        button_secondary_border_color_dark="#39414b",
        button_border_width="1px",
        button_border_width_dark="1px",
        block_background_fill_dark="#1c2127",
        block_label_background_fill_dark="#1c2127",
        input_background_fill_dark="#121519",
        border_color_primary_dark="#39414b",
        block_border_color_dark="#39414b",
        block_label_text_color="#5a6470",
        block_label_text_color_dark="#a0a9b5",
        body_text_color_subdued="#5a6470",
        body_text_color_subdued_dark="#a0a9b5",
        block_radius="8px",
        color_accent="#2d5f99",
        checkbox_label_background_fill_dark="#121519",
        checkbox_label_background_fill_hover_dark="#2b3a4c",
        checkbox_label_background_fill_selected="#e3eaf3",
        checkbox_label_background_fill_selected_dark="#2b3a4c",
        checkbox_border_color="#5a6470",
        checkbox_border_color_dark="#a0a9b5",
        checkbox_background_color_dark="#121519",
        checkbox_background_color_selected="#2d5f99",
        checkbox_background_color_selected_dark="#8db7ea",
    )


def build_page(
    tagger: Tagger, settings: Tag, review: LabelReview | str, *, name: str, command: str
) -> gr.Blocks:
    """Build the page; arguments as for `serve_page`."""
    facts = f"{tagger.settings.n_folds} networks, {len(tagger.labels)} classes"
    with gr.Blocks(
        title=f"{name}: tag sounds",
        analytics_enabled=False,
        delete_cache=(_DELETE_AFTER // 6, _DELETE_AFTER),
    ) as page:
        _html(_render("header", facts, name))
        with gr.Tabs():
            with gr.Tab("Tag a sound"):
                _build_tagging(tagger, settings)
            with gr.Tab("Wrong labels"):
                _build_review(page, review, tagger.settings.log_mel, command)
    page.queue(api_open=False, max_size=16)
    return page


def _html(value: str = "", *, visible: bool = True) -> gr.HTML:
    return gr.HTML(value, visible=visible, elem_classes="page", js_on_load=None, padding=False)


# Tagging


def _build_tagging(tagger: Tagger, settings: Tag) -> None:
    _html(_render("tagging_help", f"{_MAX_MEGABYTES} MB"))
    audio = gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label="Sound",
        editable=False,
        buttons=[],
    )
    status, result = _html(visible=False), _html(visible=False)
    with gr.Row(visible=False) as downloads:
        table = gr.DownloadButton("Download the timeline (CSV)")
        labels = gr.DownloadButton("Download labels for Audacity")
    audio.change(
        partial(_tag, tagger, settings),
        inputs=audio,
        outputs=[status, result, downloads, table, labels],
        concurrency_limit=1,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )


def _tag(tagger: Tagger, settings: Tag, path: str | None) -> Iterator[tuple]:
    """Yield what the page shows of a sound, more and more."""
    hidden = gr.update(visible=False)
    if path is None:
        yield hidden, hidden, hidden, None, None
        return
    name = printable(Path(path).name)
    yield _shown(_render("working", f"Tagging {name} …")), hidden, hidden, None, None
    sound = Sound(Path(path).name, path)
    (row,) = tagger.tag([sound]).itertuples(index=False)
    if row.reason:
        rejected = _render("rejected", name, row.reason, row.warning)
        yield hidden, _shown(rejected), hidden, None, None
        return
    tags = _render("tags", name, _ranked(row), row.warning)
    picture = draw_file(sound, tagger.settings.log_mel)
    single = _render("spectrogram_card", picture) if picture else ""
    if picture is None or picture.seconds <= _TIMELINE_WINDOWS * settings.window_seconds:
        yield hidden, _shown(tags + single), hidden, None, None
        return
    yield (
        _shown(
            _render(
                "working", "Tagging its parts for the timeline. An hour of sound takes minutes …"
            )
        ),
        *(_shown(tags + single), hidden, None, None),
    )
    timeline = tag_recording(tagger, sound, settings)
    html = tags + _render_timeline(timeline, picture, settings)
    yield (
        hidden,
        _shown(html),
        gr.update(visible=not timeline.reason),
        *_write_files(timeline, Path(path).name),
    )


def _shown(html: str) -> dict:
    return gr.update(value=html, visible=True)


def _ranked(row: Any) -> list[tuple[str, float]]:
    """Return label and probability of the tags of a row of `Tagger.tag`."""
    pairs = [(getattr(row, f"tag_{k}"), getattr(row, f"probability_{k}")) for k in (1, 2, 3)]
    return [(printable(label), x) for label, x in pairs if not pd.isna(x)]


def _render_timeline(timeline: Timeline, picture: Picture, settings: Tag) -> str:
    if timeline.reason:
        return _render("message", f"There is no timeline: {timeline.reason}", "error")
    segments = timeline.segments
    rows = [
        (x.start, x.end, printable(x.label), x.probability)
        for x in segments.head(_MAX_ROWS).itertuples()
    ]
    return _render(
        "timeline",
        *(picture, lanes_of(segments, picture.seconds), rows, len(segments)),
        *(settings.window_seconds, settings.threshold, timeline.warning),
    )


def lanes_of(
    segments: pd.DataFrame, seconds: float
) -> list[tuple[str, list[tuple[float, float, str]]]]:
    """Return the segments to draw below a spectrogram, a lane for each label.

    Args:
        segments: start, end, label, probability.
        seconds: length of the spectrogram; what is after it is left out.

    Returns:
        The labels that sound longest; of each, where its segments begin and how long they are, as
        fractions, and their text.
    """
    drawn = segments[segments["start"] < seconds]
    lengths = (drawn["end"].clip(upper=seconds) - drawn["start"]).groupby(drawn["label"]).sum()
    lanes = []
    longest = lengths.nlargest(_MAX_LANES).index
    # In the order in which they begin.
    for label in drawn.loc[drawn["label"].isin(longest), "label"].unique():
        events = [
            (
                x.start / seconds,
                (min(x.end, seconds) - x.start) / seconds,
                f"{printable(label)}, {_clock(x.start)} to {_clock(x.end)}, "
                f"{format_percent(x.probability)}",
            )
            for x in drawn[drawn["label"] == label].itertuples()
        ]
        lanes.append((printable(label), events))
    return lanes


def _write_files(timeline: Timeline, name: str) -> tuple[str | None, str | None]:
    """Write the files to download, and return their paths."""
    if timeline.reason:
        return None, None
    folder = _temporary_folder()
    table, labels = folder / f"{name}.segments.csv", folder / f"{name}.labels.txt"
    table.write_text(spreadsheet_csv(timeline.segments), "utf-8")
    labels.write_text(audacity_labels(timeline.segments), "utf-8")
    return str(table), str(labels)


def _temporary_folder() -> Path:
    """Return a new folder, which ends with the server."""
    return Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))


# Spectrograms


def draw_file(sound: Sound, settings: LogMel) -> Picture | None:
    """Draw the spectrogram of a sound's first ten minutes; None if it cannot be read."""
    path = str(sound.content)
    try:
        with open_raw_file(path) as file:
            wave, _ = decode(file, max_seconds=_MAX_DRAWN_SECONDS, suffix=Path(path).suffix)
    except (UnusableClipError, UnreadableError):
        return None
    return draw(wave, settings)


def draw(wave: np.ndarray, settings: LogMel) -> Picture:
    """Draw the log-mel spectrogram of a wave, (n,) at 44.1 kHz, with few columns."""
    chunks = np.array_split(wave, max(1, len(wave) // (_CHUNK_SECONDS * SAMPLE_RATE)))
    n_columns = max(1, _MAX_COLUMNS // len(chunks))
    mel = np.concatenate([_few_columns(chunk, settings, n_columns) for chunk in chunks])
    seconds = len(wave) / SAMPLE_RATE
    step = next((x for x in _TIME_STEPS if seconds / x <= 8), _TIME_STEPS[-1])
    times = [(float(t / seconds), _clock(t).split()[0]) for t in np.arange(0, seconds * 0.97, step)]
    centers = band_centers(settings.kind, settings.sample_rate, settings.n_mels)
    bands = np.arange(settings.n_mels)
    frequencies = [
        (float(np.interp(hertz, centers, bands) + 0.5) / settings.n_mels, text)
        for hertz, text in _FREQUENCIES.items()
        if centers[0] < hertz < centers[-1]
    ]
    caption = "Log-mel spectrogram: brighter is louder, within 80 dB; time in seconds"
    if seconds >= 60:
        caption = caption.replace("in seconds", "in minutes and seconds")
    if len(wave) >= _MAX_DRAWN_SECONDS * SAMPLE_RATE:
        caption += f". Only the first {_MAX_DRAWN_SECONDS // 60} minutes are drawn"
    return Picture(encode_mel(mel), seconds, times, frequencies, f"{caption}.")


def _few_columns(wave: np.ndarray, settings: LogMel, n_columns: int) -> np.ndarray:
    """Return the log-mel (t, m) of a wave in dB, t at most `n_columns`, means of its frames."""
    mel = decibels(log_mel(wave, **settings.model_dump()).T, settings.kind)
    starts = np.linspace(0, len(mel), min(n_columns, len(mel)), endpoint=False).astype(int)
    return np.add.reduceat(mel, starts) / np.diff([*starts, len(mel)])[:, None]


def _clock(seconds: float) -> str:
    """Format a time: 2.5 s, 1:02.5 or 1:00:02.5."""
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    shown = f"{rest:04.1f}".removesuffix(".0")
    return f"{hours}:{minutes:02}:{shown}" if hours else f"{minutes}:{shown}"


# Wrong labels


class _Shown(NamedTuple):
    """The parts of the tab that show a clip, or their values."""

    clip: Any
    choice: Any
    other: Any
    note: Any
    count: Any


def load_review(data_dir: str, raw_dir: Path | None) -> LabelReview | str:
    """Load the doubtful labels of a finished training, or return why there are none to correct.

    Args:
        data_dir: folder with the outputs of the training, which may hold pickles that run code.
        raw_dir: the raw folder of the environment; only that of the training gets corrections.
    """
    if is_url(data_dir):
        return f"{data_dir} is not on this machine. Correct labels in report.html instead."
    folder = Path(data_dir)
    paths = {
        "train_predictions": folder / "08_reporting/train_predictions.pkl",
        "train_metadata": folder / "02_intermediate/train_metadata.pkl",
        "train_audio": folder / "02_intermediate/train_audio",
    }
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        return (
            f"There is nothing to correct here: {', '.join(missing)} missing. "
            "`kedro run` writes what this page needs."
        )
    try:
        with _locked(folder, {*paths}):
            Marks(data_dir).require_finished({*paths})
            predictions = pickle.loads(paths["train_predictions"].read_bytes())
            metadata = pickle.loads(paths["train_metadata"].read_bytes())
            audio = RaggedDataset(filepath=str(paths["train_audio"])).load()
    except InputError as error:
        return f"There is nothing to correct now: {error}"
    return LabelReview(predictions, audio, _writable(raw_dir, metadata["path"].dropna()))


def _locked(folder: Path, names: set[str]) -> AbstractContextManager:
    try:
        return lock(set(), names, folder)
    except OSError:  # Results that this user may only read have no locks.
        return nullcontext()


def _writable(raw_dir: Path | None, paths: pd.Series) -> Path | None:
    """Return the raw folder if these clips are from it, and this user may write to it."""
    if raw_dir is None or not paths.astype(str).str.startswith(f"{raw_dir}{os.sep}").all():
        return None
    return raw_dir if os.access(raw_dir, os.W_OK) else None


def _build_review(page: gr.Blocks, review: LabelReview | str, show: LogMel, command: str) -> None:
    if isinstance(review, str):
        _html(_render("message", review))
        return
    if not len(review.clips):
        _html(_render("message", "No label is doubtful: there is nothing to correct."))
        return
    _html(_render("review_help", len(review.clips)))
    index, clip = gr.State(0), _html()
    choice = gr.Radio([], label="Correct label")
    with gr.Row():
        other = gr.Dropdown([], label="Another class", visible=len(review.predictions.labels) > 2)
        note = gr.Textbox(label="Note (optional)", max_length=200, max_lines=1)
    count = _html()
    with gr.Row():
        back, forward = gr.Button("Previous"), gr.Button("Next", variant="primary")
        save = gr.Button("Save")
    saved = _html(visible=False)
    download = gr.DownloadButton(f"Download {TABLE}", visible=False)
    shown = _Shown(clip, choice, other, note, count)
    inputs = [index, choice, other, note]
    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def move(steps: int, index: int, *decision: Any) -> tuple:
        _decide(review, index, *decision)
        index = min(max(index + steps, 0), len(review.clips) - 1)
        return index, *_show_clip(review, show, index)

    def decide(*values: Any) -> str:
        _decide(review, *values)
        return _render_count(review)

    def write(*values: Any) -> tuple:
        _decide(review, *values)
        return _render_count(review), *_save(review, command)

    page.load(lambda: (0, *_show_clip(review, show, 0)), outputs=[index, *shown], **options)
    for button, steps in ((back, -1), (forward, 1)):
        button.click(partial(move, steps), inputs, [index, *shown], **options)
    choice.input(decide, inputs, count, **options)
    other.input(lambda: _OTHER, outputs=choice, **options).then(decide, inputs, count, **options)
    save.click(write, inputs, [count, saved, download], **options)


def _decide(
    review: LabelReview, index: int, choice: str | None, other: str | None, note: str
) -> None:
    """Add the decision on a clip, if one is made."""
    clip = review.clips.iloc[index]
    labels = {_KEEP: clip["label"], _SUGGESTED: clip["suggested"], _OTHER: other, _DROP: ""}
    label = labels.get(choice or "")
    decision = None if label is None else (label, note.strip())
    if decision and decision != review.saved.get(clip["fname"]):
        review.decided[clip["fname"]] = decision


def _show_clip(review: LabelReview, settings: LogMel, index: int) -> _Shown:
    clip = review.clips.iloc[index]
    label, note = review.decisions.get(clip["fname"], (None, ""))
    others = [x for x in review.predictions.labels if x not in (clip["label"], clip["suggested"])]
    choices = [
        (f"{printable(clip['label'])} (keep)", _KEEP),
        (f"{printable(clip['suggested'])} (suggested)", _SUGGESTED),
        *([("another class", _OTHER)] if others else []),
        ("none: drop the clip", _DROP),
    ]
    chosen = {clip["label"]: _KEEP, clip["suggested"]: _SUGGESTED, "": _DROP, None: None}
    wave, exemplar = review.sound(clip["row"]), review.exemplars[clip["suggested"]]
    html = _render(
        "clip",
        *(clip, f"{index + 1} of {len(review.clips)}", draw(wave, settings), encode_audio(wave)),
        review.predictions.clips["fname"].iloc[exemplar],
        encode_audio(review.sound(exemplar)),
    )
    return _Shown(
        clip=html,
        choice=gr.update(choices=choices, value=chosen.get(label, _OTHER)),
        other=gr.update(choices=others, value=label if label in others else None),
        note=note,
        count=_render_count(review),
    )


def _render_count(review: LabelReview) -> str:
    return _render("count", len(review.decisions), len(review.clips))


def _save(review: LabelReview, command: str) -> tuple:
    """Save what is decided; return what the page says of it, and the file to download."""
    hidden = gr.update(visible=False)
    if not review.decisions:
        return _shown(_render("message", "Nothing is decided yet.")), hidden
    try:
        content, path = review.save()
    except (InputError, OSError) as error:
        return _shown(_render("message", f"Not saved: {error}", "error")), hidden
    file = _temporary_folder() / TABLE
    file.write_bytes(content)
    message = _render("saved", len(review.decisions), path and str(path), command)
    return _shown(message), gr.update(value=str(file), visible=True)


def _render(macro: str, *values: Any) -> str:
    """Render a macro of the template; every value is escaped."""
    return str(getattr(_macros(), macro)(*values))


@cache
def _macros() -> Any:
    environment = Environment(
        loader=PackageLoader("fsat_kedro"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=format_percent, clock=_clock)
    return environment.get_template("app.html.jinja").module
