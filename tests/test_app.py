"""The page of `kedro app` in a headless browser, with an untrained tiny ensemble."""

import json
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import requests
import soundfile
from click.testing import CliRunner

from fsat_kedro import cli
from fsat_kedro.data.label_corrections import TABLE, correct_labels
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.data.synthetic import synthesize
from fsat_kedro.datasets import TaggerDataset
from fsat_kedro.evaluation.label_review import LabelReview
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.evaluation.report import format_percent
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.inference.tagger import Sound, weight_files
from fsat_kedro.inference.timeline import audacity_labels, tag_recording
from fsat_kedro.parameters import Tag

pytest.importorskip("gradio")

from fsat_kedro import app

ATTACK = '<img src="x" onerror="window.hacked = 1">'
TEMPLATE = "${window.hacked = 1}{{value}} [link](http://192.0.2.1) **bold**"
LABELS = [ATTACK, "Bark", TEMPLATE, "Meow_" + "o" * 80]
SETTINGS = Tag(timeline=False, window_seconds=0.5, hop_seconds=0.25, threshold=0.05)
SHORT, LONG = 0.9, 2.6  # Seconds; a timeline is for more than three windows.


@pytest.fixture(scope="module")
def tagger(tmp_path_factory, tagger_settings, tiny_backbone):
    """Return an ensemble of two random networks."""
    import keras

    from fsat_kedro.modelling.networks import build_network

    folder = tmp_path_factory.mktemp("06_models")
    settings = tagger_settings.model_copy(
        update={"model": tagger_settings.model.model_copy(update={"summary_features": False})}
    )
    statistics = {"minimum": -80.0, "maximum": 40.0, "shortest": 32, "longest": 64}
    (folder / "mel_statistics.json").write_text(json.dumps(statistics))
    (folder / "classes.json").write_text(json.dumps({"labels": LABELS}))
    rng = np.random.default_rng(0)
    with tiny_backbone():
        keras.utils.set_random_seed(0)
        network = build_network(
            settings.model, weights=None, n_mels=32, n_classes=4, n_components=None
        )
        for file in weight_files(2, "mel"):
            classes = network.get_layer("classes")
            classes.set_weights([rng.normal(0, 2, x.shape) for x in classes.get_weights()])
            (folder / file).parent.mkdir()
            network.save_weights(folder / file)
        TaggerDataset(filepath=str(folder / "tagger.json")).save(settings)
        tagger = TaggerDataset(filepath=str(folder / "tagger.json")).load()
        tagger.tag([Sound("a.wav", synthesize_bytes(tmp_path_factory))])
        yield tagger


def synthesize_bytes(factory):
    path = factory.mktemp("sounds") / "a.wav"
    return write_sound(path, SHORT).read_bytes()


def write_sound(path, seconds):
    soundfile.write(path, synthesize("Drum", seconds, np.random.default_rng(0)), 44_100)
    return path


# A review of five clips, the first of which are the most doubtful


@pytest.fixture
def clips(tmp_path):
    fnames = ["a.wav", "b.wav", "c.wav", "d.wav", "e.wav"]
    labels = ["Bark", LABELS[3], ATTACK, "Bark", TEMPLATE]
    known = {"verified": pd.array([None] * 5, "boolean"), "path": None, "reason": ""}
    return pd.DataFrame({"fname": fnames, "label": pd.array(labels, "string"), **known})


@pytest.fixture
def raw_dir(tmp_path):
    folder = tmp_path / "01_raw"
    folder.mkdir()
    return folder


@pytest.fixture
def review(clips, raw_dir, rng):
    """Return a review in which a.wav, b.wav and c.wav are doubtful, in this order."""
    probabilities = np.full((5, 4), 0.01)
    for row, (suggested, probability) in enumerate([(2, 0.97), (1, 0.8), (1, 0.6)]):
        probabilities[row, suggested] = probability
    probabilities[0, 1], probabilities[1, 3], probabilities[2, 0] = 0.01, 0.18, 0.38
    probabilities[3, 1], probabilities[4, 2] = 0.97, 0.97
    predicted = clips.assign(status="ok", length=4410, correction="", note="")
    audio = rng.normal(0, 0.1, 5 * 4410).astype(np.float32)
    return LabelReview(
        Predictions(probabilities, predicted, LABELS, np.ones(5, int)),
        RaggedArray(audio, np.arange(6) * 4410),
        raw_dir,
    )


# The server and the browser


@contextmanager
def served(tagger, review):
    """Serve the page in a thread; yield its url."""
    page = app.build_page(tagger, SETTINGS, review, name="demo", command="kedro run --env demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = app.Server(app.make_app(page, "127.0.0.1"), "127.0.0.1", port, open_browser=False)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def url(tagger, review, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    with served(tagger, review) as url:
        yield url


@pytest.fixture
def open_page(browser, url):
    """Return a function that opens the page; check that it asks nobody else for anything."""
    context = browser.new_context()
    requested, errors = [], []

    def open_(*, width=1000, scheme="light"):
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.on("request", lambda request: requested.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(url)
        tab.wait_for_selector("input[type=file]", state="attached")
        return tab

    yield open_
    assert [x for x in requested if not x.startswith((url, "data:", f"blob:{url}"))] == []
    assert len(requested) > 10
    assert errors == []
    context.close()


def upload(tab, path, wait=".tags"):
    tab.set_input_files("input[type=file]", path)
    tab.wait_for_selector(wait)
    tab.wait_for_selector(".spinner", state="detached")


def open_review(tab):
    tab.get_by_role("tab", name="Wrong labels").click()
    tab.wait_for_selector("text=Clip 1 of 3")


# Tagging


def test_an_uploaded_sound_has_the_tags_of_the_tagger(open_page, tagger, tmp_path):
    path = write_sound(tmp_path / "bark.wav", SHORT)
    tab = open_page()
    assert tab.query_selector_all(".card") == []
    upload(tab, path)
    (row,) = tagger.tag([Sound("bark.wav", str(path))]).itertuples()
    expected = [
        [row.tag_1, format_percent(row.probability_1)],
        [row.tag_2, format_percent(row.probability_2)],
        [row.tag_3, format_percent(row.probability_3)],
    ]
    assert [x.inner_text().split("\n") for x in tab.query_selector_all(".tags li")] == expected
    assert tab.inner_text(".page h2") == "bark.wav"
    assert tab.is_visible(".spectrogram img")
    assert tab.query_selector("table") is None


def test_a_long_sound_has_a_timeline_and_its_files(open_page, tagger, tmp_path):
    path = write_sound(tmp_path / "long.wav", LONG)
    tab = open_page()
    upload(tab, path, wait="table")
    segments = tag_recording(tagger, Sound("long.wav", str(path)), SETTINGS).segments
    assert len(segments) > 1
    rows = [x.inner_text().split("\t") for x in tab.query_selector_all("tbody tr")]
    assert [row[2] for row in rows] == segments["label"].tolist()
    assert [row[3] for row in rows] == segments["probability"].map(format_percent).tolist()
    assert len(tab.query_selector_all(".track i")) == len(segments)
    with tab.expect_download() as table:
        tab.click("text=Download the timeline")
    assert table.value.suggested_filename == "long.wav.segments.csv"
    pd.testing.assert_frame_equal(pd.read_csv(table.value.path()), segments, atol=1e-6)
    with tab.expect_download() as labels:
        tab.click("text=Audacity")
    assert Path(labels.value.path()).read_text() == audacity_labels(segments)


def test_a_broken_file_has_its_reason_and_the_next_sound_is_tagged(open_page, tmp_path):
    (tmp_path / "broken.wav").write_text("no sound")
    tab = open_page()
    upload(tab, tmp_path / "broken.wav", wait=".error")
    assert "cannot be tagged: not readable as sound" in tab.inner_text(".error")
    assert tab.query_selector(".tags") is None
    tab.get_by_label("Clear").click()
    tab.wait_for_selector(".card", state="detached")
    upload(tab, write_sound(tmp_path / "bark.wav", SHORT))


def test_markup_in_labels_and_names_is_text(open_page, tmp_path):
    path = write_sound(tmp_path / "<b>a&amp;.wav", LONG)
    tab = open_page()
    upload(tab, path, wait="table")
    open_review(tab)
    tab.get_by_role("combobox").click()
    shown = tab.inner_text("body")
    for label in (ATTACK, TEMPLATE):
        assert label in shown
    assert tab.evaluate("window.hacked") is None
    assert tab.query_selector("a[href*='192.0.2.1'], img[src='x'], h2 b") is None


# Corrections


def decide(tab, choice, note=""):
    tab.get_by_label(choice).check()
    tab.get_by_label("Note").fill(note)


def next_clip(tab, number):
    tab.get_by_role("button", name="Next").click()
    tab.wait_for_selector(f"text=Clip {number} of 3")


def test_saved_corrections_are_those_that_training_reads(open_page, clips, raw_dir):
    (raw_dir / TABLE).write_text("fname,label,note\ne.wav,Bark,from before\nc.wav,Bark,\n")
    tab = open_page()
    open_review(tab)
    assert "1 of 3 decided" in tab.inner_text("body")
    decide(tab, "(suggested)", 'a "note", with comma')
    next_clip(tab, 2)
    decide(tab, "none: drop")
    tab.wait_for_selector("text=3 of 3 decided")
    next_clip(tab, 3)
    assert tab.get_by_label("(suggested)").is_checked()
    assert tab.get_by_label("Note").input_value() == ""
    decide(tab, "(keep)")
    tab.get_by_role("button", name="Save").click()
    tab.wait_for_selector(".done")
    message = tab.inner_text(".done")
    assert str(raw_dir / TABLE) in message
    assert "kedro run --env demo" in message
    table = correct_labels(clips, raw_dir).set_index("fname")
    changes = {"a.wav": "changed", "b.wav": "dropped", "c.wav": "confirmed", "d.wav": ""}
    assert table["correction"].to_dict() == {**changes, "e.wav": "changed"}
    assert table["label"][["a.wav", "e.wav"]].tolist() == [TEMPLATE, "Bark"]
    assert table["note"][["a.wav", "e.wav"]].tolist() == ['a "note", with comma', "from before"]
    with tab.expect_download() as download:
        tab.click(f"text=Download {TABLE}")
    assert Path(download.value.path()).read_bytes() == (raw_dir / TABLE).read_bytes()


def test_another_class_can_be_chosen_and_outlives_a_reload(open_page, review):
    tab = open_page()
    open_review(tab)
    tab.get_by_role("combobox").click()
    tab.get_by_role("option", name="Meow").click()
    tab.wait_for_selector("text=1 of 3 decided")
    tab.reload()
    open_review(tab)
    assert tab.get_by_role("radio", name="another class").is_checked()
    assert review.decided == {"a.wav": (LABELS[3], "")}


def test_corrections_can_be_downloaded_when_the_raw_data_is_gone(open_page, raw_dir):
    raw_dir.rmdir()
    tab = open_page()
    open_review(tab)
    decide(tab, "(suggested)")
    tab.get_by_role("button", name="Save").click()
    with tab.expect_download() as download:
        tab.click(f"text=Download {TABLE}")
    assert pd.read_csv(download.value.path())[["fname", "label"]].to_numpy().tolist() == [
        ["a.wav", TEMPLATE]
    ]
    assert "move it into the raw folder" in tab.inner_text(".done")


# Form


def test_every_control_has_a_name_and_is_reached_by_keyboard(open_page):
    tab = open_page()
    reached = set()

    def press(times):
        for _ in range(times):
            tab.keyboard.press("Tab")
            reached.add(
                tab.evaluate(
                    "(x => x.getAttribute('aria-label') || x.innerText || x.labels?.[0]?.innerText)"
                    "(document.activeElement)"
                ).strip()
            )

    press(8)
    tagging = {"Tag a sound", "Wrong labels", "Upload file", "Record audio"}
    assert {*tagging, "Drop an audio file here to upload"} <= reached
    open_review(tab)
    press(30)
    expected = ("a.wav", f"exemplar of {TEMPLATE}", "Note (optional)", "Previous", "Next", "Save")
    assert {*expected, "Another class"} <= reached
    assert any(x.endswith("(keep)") for x in reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_shows_everything_with_contrast(open_page, tmp_path, scheme):
    tab = open_page(width=400, scheme=scheme)
    upload(tab, write_sound(tmp_path / f"{'a' * 100}.wav", LONG), wait="table")
    assert find_too_wide(tab) == []
    for text, background in ((".card h2", ".card"), (".card .grey", ".card"), ("p", "body")):
        assert contrast(tab, text, background) >= 4.5
    is_dark = luminance(style(tab, "body", "backgroundColor")) < 0.1
    assert is_dark == (scheme == "dark")
    open_review(tab)
    assert find_too_wide(tab) == []
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.title() == "demo: tag sounds"


def find_too_wide(tab):
    """Return what is beyond the right edge of the window, and in no part that scrolls."""
    return tab.evaluate(
        """[document.documentElement, ...document.querySelectorAll(".page *, button, input")]
            .filter(x => !x.closest(".scroll") && x.getClientRects().length
                && Math.max(x.getBoundingClientRect().right, x.scrollWidth) > 401)
            .map(x => x.outerHTML.slice(0, 100))"""
    )


def style(tab, selector, name):
    return tab.eval_on_selector(selector, f"x => getComputedStyle(x).{name}")


def contrast(tab, text, background):
    colors = style(tab, text, "color"), style(tab, background, "backgroundColor")
    lighter, darker = sorted(map(luminance, colors), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color):
    """Compute the relative luminance of a CSS color, as WCAG defines it."""
    parts = np.array([int(x) for x in color.removeprefix("rgb(").rstrip(")").split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# What the server gives away


def test_other_files_and_other_hosts_are_refused(url, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for path in (tmp_path / "secret.txt", Path("pyproject.toml").absolute(), "/etc/hostname"):
        assert requests.get(f"{url}gradio_api/file={path}").status_code == 403
    answer = requests.get(url, headers={"Host": "example.org"})
    assert answer.status_code == 400
    assert requests.get(f"{url}openapi.json").status_code == 404
    endpoints = requests.get(f"{url}gradio_api/info").json()
    assert endpoints["named_endpoints"] == endpoints["unnamed_endpoints"] == {}


def test_uploads_end_with_the_server(tagger, monkeypatch):
    folders = []

    def run(server):
        folders.append(Path(app.os.environ["GRADIO_TEMP_DIR"]))
        assert folders[0].is_dir()

    monkeypatch.setattr(app.Server, "run", run)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    app.serve_page(
        *(tagger, SETTINGS, "no review"),
        **{"name": "demo", "command": "", "host": "127.0.0.1", "port": 1, "open_browser": False},
    )
    assert not folders[0].exists()


def test_without_gradio_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "fsat_kedro.app")
    result = CliRunner().invoke(cli.app, [], obj=SimpleNamespace(project_path=Path()))
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "Error: Gradio is not installed. Install it: "
        'uv pip install --constraint requirements.lock --editable ".[app]"'
    ]


# The review of a training


@pytest.fixture
def data_dir(tmp_path, review, clips, raw_dir):
    from kedro_datasets.pickle import PickleDataset

    from fsat_kedro.datasets import RaggedDataset

    folder = tmp_path / "data"
    metadata = clips.assign(path=[str(raw_dir / "audio" / x) for x in clips["fname"]])
    files = {
        "08_reporting/train_predictions.pkl": review.predictions,
        "02_intermediate/train_metadata.pkl": metadata,
    }
    for file, content in files.items():
        PickleDataset(filepath=str(folder / file)).save(content)
    RaggedDataset(filepath=str(folder / "02_intermediate/train_audio")).save(review.audio)
    return folder


def test_the_review_of_a_training_has_its_clips_and_its_raw_folder(data_dir, raw_dir, review):
    loaded = app.load_review(str(data_dir), raw_dir)
    assert loaded.clips["fname"].tolist() == ["a.wav", "b.wav", "c.wav"]
    np.testing.assert_array_equal(loaded.sound(1), review.sound(1))
    assert loaded.raw_dir == raw_dir


def test_corrections_are_not_written_into_the_raw_folder_of_another_training(data_dir, tmp_path):
    other = tmp_path / "01"
    other.mkdir()
    assert app.load_review(str(data_dir), other).raw_dir is None


def test_without_what_it_needs_there_is_no_review(data_dir, raw_dir):
    assert "is not on this machine" in app.load_review("s3://bucket/run", raw_dir)
    Marks(str(data_dir)).mark_unfinished({"train_audio"})
    assert "not finished" in app.load_review(str(data_dir), raw_dir)
    (data_dir / "08_reporting/train_predictions.pkl").unlink()
    assert "train_predictions.pkl missing" in app.load_review(str(data_dir), raw_dir)
