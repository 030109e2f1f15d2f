"""The page: what stands in it, and what a browser makes of it."""

import base64
import io
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.figure import Figure
from PIL import Image

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation.report import Split, draw_mel, embed_plot, encode_wave, render_report
from fsat_kedro.parameters import Report

LABELS = ["Bark", "Flute", "Meow", "Siren"]
ATTACK = '"><img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'
FRAME = 0.01


def make_split(labels, probabilities, *, name="out-of-fold", seconds=0.4, verified=None):
    n = len(labels)
    clips = pd.DataFrame(
        {
            "fname": pd.array([f"{name} {i}.wav" for i in range(n)], dtype="string"),
            "label": pd.array(labels, dtype="string"),
            "verified": pd.array(verified or [None] * n, dtype="boolean"),
            "status": "ok",
            "length": round(seconds * SAMPLE_RATE),
        }
    )
    rng = np.random.default_rng(0)
    times = np.arange(clips["length"].iloc[0]) / SAMPLE_RATE
    waves = [0.01 * np.sin(2 * np.pi * 440 * (1 + i) * times) for i in range(n)]
    n_frames = round(seconds / FRAME)
    return Split(
        name,
        clips,
        np.array(probabilities, float),
        np.ones(n, int) if name == "out-of-fold" else np.zeros(n, int),
        RaggedArray(np.concatenate(waves).astype(np.float32), np.arange(n + 1) * len(times)),
        RaggedArray(
            rng.normal(-40, 9, (n * n_frames, 64)).astype(np.float32), np.arange(n + 1) * n_frames
        ),
    )


def one_hot(*indices, sure=0.9):
    """Probabilities with one sure class a clip."""
    rest = (1 - sure) / (len(LABELS) - 1)
    return np.full((len(indices), len(LABELS)), rest) + np.eye(len(LABELS))[list(indices)] * (
        sure - rest
    )


def make_plot():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1])
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    return embed_plot(file.getvalue(), "A plot", "How to read it.")


def render(splits, labels=LABELS, *, max_clips=9, max_seconds=10, max_megabytes=20, **content):
    score = dict.fromkeys(["map_at_3", "map_at_3_low", "map_at_3_high"], 0.8125)
    score |= dict.fromkeys(["accuracy", "accuracy_low", "accuracy_high"], 0.5)
    content = {
        "name": "mine",
        "facts": ["4 classes"],
        "scores": [{"clips": "cross-validation", "n_clips": 5, **score}],
        "pairs": [{"true": "Bark", "predicted": "Meow", "clips": 2, "share": 0.5}],
        "plots": [make_plot()],
        **content,
    }
    settings = Report(max_clips=max_clips, max_seconds=max_seconds, max_megabytes=max_megabytes)
    return render_report(splits=splits, labels=labels, settings=settings, frame=FRAME, **content)


@pytest.fixture(scope="module")
def splits():
    """Three training clips and one test clip that are missed, and others that are not."""
    probabilities = one_hot(0, 1, 2, 3, 2, 2, 1)
    probabilities[4] = one_hot(2, sure=0.6)
    train = make_split(
        ["Bark", "Flute", "Meow", "Siren", "Bark", "Bark", "Siren"],
        probabilities,
        verified=[True, True, True, True, False, True, False],
    )
    return [train, make_split(["Siren", "Meow"], one_hot(3, 0, sure=0.99), name="test")]


@pytest.fixture(scope="module")
def page(splits):
    return render(splits)


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in {"meta", "img", "input", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data

    def of(self, tag, **attributes):
        return [
            found
            for name, found in self.tags
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]


def content_of(uri):
    kind, _, data = uri.partition(";base64,")
    return kind, base64.b64decode(data)


# Structure


def test_what_is_opened_is_closed(page):
    assert Elements(page).open == []


def test_missed_clips_stand_surest_first_with_their_tags(page):
    clips = Elements(page).of("article", **{"class": "card clip"})
    assert [clip["data-fname"] for clip in clips] == [
        "test 1.wav",
        "out-of-fold 5.wav",
        "out-of-fold 6.wav",
        "out-of-fold 4.wav",
    ]
    assert [(clip["data-label"], clip["data-tag"]) for clip in clips] == [
        ("Meow", "Bark"),
        ("Bark", "Meow"),
        ("Siren", "Flute"),
        ("Bark", "Meow"),
    ]
    assert [clip["data-verified"] for clip in clips] == ["", "yes", "no", "no"]


def test_nothing_is_fetched(page):
    for tag, attributes in Elements(page).tags:
        for name in ("src", "href", "srcset", "poster", "data"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in page
    assert "@import" not in page


def test_every_sound_can_be_read_and_has_its_length_and_a_name(page):
    sounds = Elements(page).of("audio")
    # Four missed clips, and a clear one of each class.
    assert len(sounds) == 4 + 4
    for sound in sounds:
        _, content = content_of(sound["src"])
        assert soundfile.info(io.BytesIO(content)).duration == pytest.approx(0.4, abs=0.01)
        assert "controls" in sound
        assert sound["aria-label"]


def test_a_label_beyond_the_third_place_is_told_with_its_place():
    train = make_split(LABELS, one_hot(0, 1, 2, 3))
    test = make_split(["Siren"], [[0.9, 0.05, 0.03, 0.02]], name="test")
    text = " ".join(Elements(render([train, test])).text.split())
    assert "Meow 3% ▶ Siren label place 4 2%" in text


def test_markup_in_labels_names_and_facts_stays_text(splits):
    labels = [ATTACK, *LABELS[1:]]
    train = make_split([ATTACK, *LABELS[1:], ATTACK], one_hot(0, 1, 2, 3, 1))
    train.clips["fname"] = ATTACK
    page = render(
        [train],
        labels,
        name=ATTACK,
        facts=[ATTACK],
        pairs=[{"true": ATTACK, "predicted": "Flute", "clips": 1, "share": 1}],
    )
    elements = Elements(page)
    assert ATTACK in elements.text
    assert len(elements.of("script")) == 1
    assert not [found for _, found in elements.tags if "onerror" in found]
    (clip,) = elements.of("article", **{"class": "card clip"})
    assert clip["data-label"] == ATTACK


def test_no_more_clips_than_asked_for_and_the_rest_is_told(splits):
    elements = Elements(render(splits, max_clips=1))
    # One of each split.
    assert len(elements.of("article", **{"class": "card clip"})) == 2
    assert "The 2 surest are here" in elements.text
    assert "the other\n    2 are left out, for the page holds\n    1 of each kind" in elements.text


def test_the_page_stays_below_its_bound_and_says_what_it_leaves_out(splits, page):
    limit = 0.6 * len(page) / 1e6
    small = render(splits, max_megabytes=limit)
    elements = Elements(small)
    clips = elements.of("article", **{"class": "card clip"})
    assert 0 < len(clips) + len(elements.of("audio")) < 4 + 8
    assert sum(len(x["src"]) for x in elements.of("audio") + elements.of("img")) <= 1e6 * limit
    assert "left out" in elements.text or "no room" in elements.text


def test_long_sounds_are_cut(splits):
    elements = Elements(render(splits, max_seconds=0.2))
    for sound in elements.of("audio"):
        _, content = content_of(sound["src"])
        assert soundfile.info(io.BytesIO(content)).duration == pytest.approx(0.2, abs=0.01)
    assert "Sounds are cut after 0.2 s." in elements.text


def test_one_class_of_which_nothing_is_missed():
    page = render([make_split(["Bark"] * 3, np.ones((3, 1)))], ["Bark"], pairs=[])
    elements = Elements(page)
    assert elements.of("form") == []
    assert len(elements.of("audio")) == 1


def test_a_test_label_that_is_no_class():
    train = make_split(LABELS, one_hot(0, 1, 2, 3))
    test = make_split(["Harp"], one_hot(0), name="test")
    elements = Elements(render([train, test]))
    (clip,) = elements.of("article", **{"class": "card clip"})
    assert clip["data-label"] == "Harp"
    assert "no class of the training clips" in elements.text


# Pictures and sounds


def test_the_picture_of_a_mel_has_time_to_the_right_and_low_frequencies_below():
    mel = np.full((50, 64), -90.0)
    mel[:10, :5] = 0
    image = np.asarray(Image.open(io.BytesIO(content_of(draw_mel(mel))[1])).convert("L"))
    assert image.shape == (64, 50)
    assert image[-5:, :10].min() > 200
    assert image[:-5].max() == image[:, 10:].max() < 10


def test_a_long_mel_becomes_a_picture_of_bounded_width():
    mel = np.random.default_rng(0).normal(size=(5000, 64))
    assert Image.open(io.BytesIO(content_of(draw_mel(mel))[1])).size == (640, 64)


@pytest.mark.parametrize(("formats", "kind"), [({"MP3": ""}, "audio/mpeg"), ({}, "audio/flac")])
def test_a_quiet_wave_is_as_loud_as_others(monkeypatch, formats, kind):
    monkeypatch.setattr(soundfile, "available_formats", lambda: formats)
    times = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    wave = 0.001 * np.sin(2 * np.pi * 440 * times).astype(np.float32)
    found, content = content_of(encode_wave(wave))
    assert found == f"data:{kind}"
    heard, rate = soundfile.read(io.BytesIO(content))
    assert rate == SAMPLE_RATE
    assert np.abs(heard).max() == pytest.approx(0.9, abs=0.05)


def test_silence_stays_silence():
    _, content = content_of(encode_wave(np.zeros(100, np.float32)))
    assert np.abs(soundfile.read(io.BytesIO(content))[0]).max() == 0


# In a browser: Chromium or Chrome, where there is one, driven by playwright, which fetches none.


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium or Chrome")
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a page from a file and check that it asks for nothing and complains of nothing."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    asked, complaints = [], []
    path = tmp_path / "report.html"

    def open_(page, *, scheme="light", width=1200):
        path.write_text(page, "utf-8")
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield open_
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
    assert complaints == []
    context.close()


def wait_for(tab, expression):
    # The page's policy forbids what playwright's own `wait_for_function` does.
    for _ in range(200):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"{expression} does not come true")


def shown(tab):
    return tab.eval_on_selector_all(
        ".clip", "clips => clips.filter(x => x.offsetParent).map(x => x.dataset.fname)"
    )


def test_clips_are_filtered_and_sorted_in_a_browser(open_page, page):
    tab = open_page(page)
    assert len(shown(tab)) == 4
    tab.select_option("select[name=label]", "Bark")
    assert shown(tab) == ["out-of-fold 5.wav", "out-of-fold 4.wav"]
    assert tab.inner_text("output") == "2 of 4 clips"
    tab.select_option("select[name=verified]", "no")
    assert shown(tab) == ["out-of-fold 4.wav"]
    tab.click("button[type=reset]")
    tab.select_option("select[name=sort]", "fname")
    names = sorted(["test 1.wav", *(f"out-of-fold {i}.wav" for i in (4, 5, 6))])
    assert shown(tab) == names
    tab.click(".pairs button")
    assert shown(tab) == ["out-of-fold 5.wav", "out-of-fold 4.wav"]


def test_sounds_play_one_at_a_time_in_a_browser(open_page, page):
    tab = open_page(page)
    wait_for(tab, "[...document.querySelectorAll('audio')].every(x => x.duration > 0.35)")
    tab.evaluate("document.querySelector('.clip audio').loop = true")
    tab.evaluate("document.querySelector('.clip audio').play()")
    wait_for(tab, "document.querySelector('.clip audio').currentTime > 0")
    tab.click(".hear >> nth=0")
    wait_for(tab, "document.querySelector('.examples audio').currentTime > 0")
    assert tab.evaluate("document.querySelector('.clip audio').paused")


def test_all_that_can_be_used_is_reached_by_keyboard(open_page, splits):
    tab = open_page(render(splits, max_clips=1))
    wanted = tab.eval_on_selector_all(
        "a, select, audio, .clip .hear, button:enabled", "all => all.length"
    )
    tab.evaluate(
        "document.addEventListener('focusin', x => (window.reached ??= new Set).add(x.target))"
    )
    for _ in range(15):  # A player has several stops of its own.
        for _ in range(10):
            tab.keyboard.press("Tab")
        if tab.evaluate("window.reached.size") >= wanted:
            return
    raise AssertionError(f"{tab.evaluate('window.reached.size')} of {wanted} were reached")


def test_verdicts_are_saved_and_still_there_when_the_page_is_opened_again(open_page, page):
    tab = open_page(page)
    assert tab.is_disabled("#save")
    tab.check(".clip >> nth=1 >> input[value=label]")
    tab.reload()
    with tab.expect_download() as download:
        tab.click("#save")
    table = pd.read_csv(download.value.path())
    assert table[["fname", "label", "tag", "wrong"]].to_numpy().tolist() == [
        ["out-of-fold 5.wav", "Bark", "Meow", "label"]
    ]


def test_markup_in_labels_does_nothing_in_a_browser(open_page):
    labels = [ATTACK, *LABELS[1:]]
    train = make_split([ATTACK, *LABELS[1:], ATTACK], one_hot(0, 1, 2, 3, 1))
    tab = open_page(render([train], labels, pairs=[]))
    tab.select_option("select[name=label]", ATTACK)
    assert shown(tab) == ["out-of-fold 4.wav"]
    assert tab.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_light_and_dark(open_page, page, scheme):
    tab = open_page(page, scheme=scheme)
    pairs = tab.evaluate(
        """() => [["body", "body"], [".card .grey", ".card"], [".first .name", ".card"],
                  [".label .name", ".card"], ["select", "select"]].map(([text, ground]) =>
            [getComputedStyle(document.querySelector(text)).color,
             getComputedStyle(document.querySelector(ground)).backgroundColor])"""
    )
    grounds = []
    for text, ground in pairs:
        lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)
        grounds.append(luminance(ground))
    assert all(x > 0.5 if scheme == "light" else x < 0.1 for x in grounds)


@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_is_no_wider_than_its_window(open_page, splits, width):
    splits[0].clips["fname"] = "a" * 200
    tab = open_page(render(splits), width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def luminance(colour):
    """Of an sRGB colour as CSS writes it, as WCAG defines it."""
    parts = np.array([int(x) for x in colour.removeprefix("rgb(").rstrip(")").split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
