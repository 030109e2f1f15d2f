"""Content of the report, and its behaviour in a browser."""

import base64
import io
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.figure import Figure

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.evaluation.previews import preview_clips
from fsat_kedro.evaluation.report import embed_plot, render_report
from fsat_kedro.parameters import LogMel, Report

LABELS = ["Bark", "Flute", "Meow", "Siren"]
ATTACK = '"><img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'
# A frame every 10 ms.
LOG_MEL = LogMel(kind="librosa", sample_rate=20_000, n_fft=1024, hop_length=200, n_mels=64)


class Split(NamedTuple):
    predictions: Predictions
    audio: RaggedArray
    mels: RaggedArray


def make_split(
    labels, probabilities, *, classes=LABELS, test=False, verified=None, correction="confirmed"
):
    """Return a split; none of its labels is doubtful, unless there is no correction ("")."""
    n, name, seconds = len(labels), "test" if test else "out-of-fold", 0.4
    clips = pd.DataFrame(
        {
            "fname": pd.array([f"{name} {i}.wav" for i in range(n)], dtype="string"),
            "label": pd.array(labels, dtype="string"),
            "verified": pd.array(verified or [None] * n, dtype="boolean"),
            "correction": correction,
            "note": "",
            "status": "ok",
            "length": round(seconds * SAMPLE_RATE),
        }
    )
    rng = np.random.default_rng(0)
    times = np.arange(clips["length"].iloc[0]) / SAMPLE_RATE
    waves = [0.01 * np.sin(2 * np.pi * 440 * (1 + i) * times) for i in range(n)]
    n_frames = round(seconds / 0.01)
    folds = None if test else np.ones(n, int)
    return Split(
        Predictions(np.array(probabilities, float), clips, classes, folds),
        RaggedArray(np.concatenate(waves).astype(np.float32), np.arange(n + 1) * len(times)),
        RaggedArray(
            rng.normal(-40, 9, (n * n_frames, 64)).astype(np.float32), np.arange(n + 1) * n_frames
        ),
    )


def one_hot(*indices, confidence=0.9):
    """Return probabilities with one confident class per clip."""
    rest = (1 - confidence) / (len(LABELS) - 1)
    return np.full((len(indices), len(LABELS)), rest) + np.eye(len(LABELS))[list(indices)] * (
        confidence - rest
    )


def make_plot():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1])
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    return embed_plot(file.getvalue(), "A plot", "How to read it.")


def render(splits, *, max_clips=9, max_seconds=10, max_megabytes=20, **content):
    score = dict.fromkeys(["map_at_3", "map_at_3_low", "map_at_3_high"], 0.8125)
    score |= dict.fromkeys(["accuracy", "accuracy_low", "accuracy_high"], 0.5)
    content = {
        "name": "mine",
        "facts": ["4 classes"],
        "scores": [{"clips": "cross-validation", "n_clips": 5, **score}],
        "pairs": [{"true": "Bark", "predicted": "Meow", "clips": 2, "fraction": 0.5}],
        "plots": [make_plot()],
        **content,
    }
    settings = Report(max_clips=max_clips, max_seconds=max_seconds, max_megabytes=max_megabytes)
    previewed = [preview_clips(settings, LOG_MEL, *split) for split in splits]
    return render_report(splits=previewed, settings=settings, **content)


@pytest.fixture(scope="module")
def splits():
    """Return three misclassified training clips, one misclassified test clip, and others."""
    probabilities = one_hot(0, 1, 2, 3, 2, 2, 1)
    probabilities[4] = one_hot(2, confidence=0.6)
    train = make_split(
        ["Bark", "Flute", "Meow", "Siren", "Bark", "Bark", "Siren"],
        probabilities,
        verified=[True, True, True, True, False, True, False],
    )
    return [train, make_split(["Siren", "Meow"], one_hot(3, 0, confidence=0.99), test=True)]


@pytest.fixture(scope="module")
def page(splits):
    return render(splits)


def make_doubtful_split():
    """Return eight training clips; the labels of 4, 5 and 6 are doubtful, 7 is misclassified."""
    probabilities = one_hot(0, 1, 2, 3, 2, 2, 1, 2)
    probabilities[4] = one_hot(2, confidence=0.95)
    probabilities[5] = one_hot(2, confidence=0.97)
    probabilities[7] = one_hot(2, confidence=0.5)
    return make_split([*LABELS, "Bark", "Bark", "Siren", "Flute"], probabilities, correction="")


@pytest.fixture(scope="module")
def doubtful_page():
    return render([make_doubtful_split()], pairs=[])


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

    def find(self, tag, **attributes):
        return [
            found
            for name, found in self.tags
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]


def content_of(uri):
    kind, _, data = uri.partition(";base64,")
    return kind, base64.b64decode(data)


# Structure


def test_every_element_is_closed(page):
    assert Elements(page).open == []


def test_misclassified_clips_are_sorted_by_confidence(page):
    clips = Elements(page).find("article", **{"class": "card clip"})
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


def test_labels_that_are_probably_wrong_come_first_and_once(doubtful_page):
    elements = Elements(doubtful_page)
    cards = elements.find("article", **{"class": "card clip"})
    assert [(card["data-fname"], card["data-suggested"]) for card in cards] == [
        ("out-of-fold 5.wav", "Meow"),
        ("out-of-fold 4.wav", "Meow"),
        ("out-of-fold 6.wav", "Flute"),
        ("out-of-fold 7.wav", "Meow"),
    ]
    assert [found["id"] for found in elements.find("section") if "id" in found][:2] == [
        "label-issues",
        "misclassified",
    ]
    text = " ".join(elements.text.split())
    assert "For 3 training clips, networks" in text
    assert "4 of 8 out-of-fold clips have a first tag that differs from their label" in text
    assert "leaves out" not in text


def test_test_clips_cannot_be_corrected(splits):
    elements = Elements(render([make_split(LABELS, one_hot(0, 1, 2, 3)), splits[1]]))
    assert len(elements.find("article", **{"class": "card clip"})) == 1
    assert not elements.find("fieldset")
    assert not elements.find("button", id="save")


def test_the_page_loads_nothing_from_outside(page, doubtful_page):
    page += doubtful_page
    for tag, attributes in Elements(page).tags:
        for name in ("src", "href", "srcset", "poster", "data"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert "url(" not in page
    assert "@import" not in page


def test_every_sound_is_readable_and_has_its_length_and_a_name(page):
    sounds = Elements(page).find("audio")
    # Four misclassified clips, and an exemplar of each class.
    assert len(sounds) == 4 + 4
    for sound in sounds:
        _, content = content_of(sound["src"])
        assert soundfile.info(io.BytesIO(content)).duration == pytest.approx(0.4, abs=0.01)
        assert "controls" in sound
        assert sound["aria-label"]


def test_a_label_after_the_third_tag_is_shown_with_its_rank():
    train = make_split(LABELS, one_hot(0, 1, 2, 3))
    test = make_split(["Siren"], [[0.9, 0.05, 0.03, 0.02]], test=True)
    text = " ".join(Elements(render([train, test])).text.split())
    assert "Meow 3% ▶ Siren label rank 4 2%" in text


def test_markup_in_labels_names_and_facts_is_escaped():
    classes = [ATTACK, *LABELS[1:]]
    train = make_split([*classes, ATTACK], one_hot(0, 1, 2, 3, 1), classes=classes)
    train.predictions.clips["fname"] = ATTACK
    page = render(
        [train],
        name=ATTACK,
        facts=[ATTACK],
        pairs=[{"true": ATTACK, "predicted": "Flute", "clips": 1, "fraction": 1}],
    )
    elements = Elements(page)
    assert ATTACK in elements.text
    assert len(elements.find("script")) == 1
    assert not [found for _, found in elements.tags if "onerror" in found]
    (clip,) = elements.find("article", **{"class": "card clip"})
    assert clip["data-label"] == ATTACK


def test_max_clips_limits_the_clips_of_each_split(splits):
    elements = Elements(render(splits, max_clips=1))
    # One per split.
    assert len(elements.find("article", **{"class": "card clip"})) == 2
    text = " ".join(elements.text.split())
    assert "The page shows the 2 most confident. It leaves out the other 2" in text
    assert "limited to 1 clips of each kind" in text


def test_max_megabytes_limits_the_page(splits, page):
    limit = 0.6 * len(page) / 1e6
    small = render(splits, max_megabytes=limit)
    elements = Elements(small)
    clips = elements.find("article", **{"class": "card clip"})
    assert 0 < len(clips) + len(elements.find("audio")) < 4 + 8
    assert sum(len(x["src"]) for x in elements.find("audio") + elements.find("img")) <= 1e6 * limit
    assert "leaves out" in elements.text or "do not fit" in elements.text


def test_max_seconds_limits_the_sounds(splits):
    elements = Elements(render(splits, max_seconds=0.2))
    for sound in elements.find("audio"):
        _, content = content_of(sound["src"])
        assert soundfile.info(io.BytesIO(content)).duration == pytest.approx(0.2, abs=0.01)
    assert "Sounds stop after 0.2 s." in elements.text


def test_a_single_class_without_misclassified_clips():
    split = make_split(["Bark"] * 3, np.ones((3, 1)), classes=["Bark"])
    page = render([split], pairs=[])
    elements = Elements(page)
    assert elements.find("form") == []
    assert len(elements.find("audio")) == 1


def test_a_test_label_that_is_none_of_the_classes():
    train = make_split(LABELS, one_hot(0, 1, 2, 3))
    test = make_split(["Harp"], one_hot(0), test=True)
    elements = Elements(render([train, test]))
    (clip,) = elements.find("article", **{"class": "card clip"})
    assert clip["data-label"] == "Harp"
    assert "not a class of the training clips" in elements.text


# Tests in a browser: an installed Chromium or Chrome, driven by playwright.


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a page from a file, and check that it requests nothing and logs no error."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    requests, messages = [], []
    path = tmp_path / "report.html"

    def open_(page, *, scheme="light", width=1200):
        path.write_text(page, "utf-8")
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=scheme)
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield open_
    assert [url for url in requests if not url.startswith(("data:", path.as_uri()))] == []
    assert messages == []
    context.close()


def wait_for(tab, expression):
    # The page's policy forbids the evaluation that playwright's `wait_for_function` uses.
    for _ in range(200):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"{expression} did not become true")


def shown(tab):
    return tab.eval_on_selector_all(
        ".clip", "clips => clips.filter(x => x.offsetParent).map(x => x.dataset.fname)"
    )


def test_clips_can_be_filtered_and_sorted(open_page, page):
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


def test_one_sound_plays_at_a_time(open_page, page):
    tab = open_page(page)
    wait_for(tab, "[...document.querySelectorAll('audio')].every(x => x.duration > 0.35)")
    tab.evaluate("document.querySelector('.clip audio').loop = true")
    tab.evaluate("document.querySelector('.clip audio').play()")
    wait_for(tab, "document.querySelector('.clip audio').currentTime > 0")
    tab.click(".play >> nth=0")
    wait_for(tab, "document.querySelector('.exemplars audio').currentTime > 0")
    assert tab.evaluate("document.querySelector('.clip audio').paused")


def test_every_control_is_reached_by_keyboard(open_page, splits):
    tab = open_page(render(splits, max_clips=1))
    expected = tab.eval_on_selector_all(
        "a, select, audio, .clip .play, button:enabled", "all => all.length"
    )
    tab.evaluate(
        "document.addEventListener('focusin', x => (window.reached ??= new Set).add(x.target))"
    )
    for _ in range(15):  # An audio player has several tab stops.
        for _ in range(10):
            tab.keyboard.press("Tab")
        if tab.evaluate("window.reached.size") >= expected:
            return
    raise AssertionError(f"reached {tab.evaluate('window.reached.size')} of {expected} controls")


def saved_corrections(tab):
    with tab.expect_download() as download:
        tab.click("#save")
    assert download.value.suggested_filename == "label_corrections.csv"
    return pd.read_csv(download.value.path(), keep_default_na=False).to_numpy().tolist()


def test_corrections_survive_a_reload_and_are_saved_as_csv(open_page, doubtful_page):
    tab = open_page(doubtful_page)
    assert tab.is_disabled("#save")
    assert tab.inner_text(".save output") == "0 of 4 clips decided."
    cards = [f"[data-fname='out-of-fold {i}.wav'] >> " for i in range(8)]
    tab.check(cards[4] + "input[value=Meow]")
    tab.fill(cards[5] + "[type=text]", 'a "cat", at night')
    tab.check(cards[5] + "input[value='']")
    tab.select_option(cards[6] + "select", "Meow")
    tab.reload()
    assert tab.inner_text(".save output") == "3 of 4 clips decided."
    assert saved_corrections(tab) == [
        ["out-of-fold 5.wav", "", 'a "cat", at night'],
        ["out-of-fold 4.wav", "Meow", ""],
        ["out-of-fold 6.wav", "Meow", ""],
    ]
    tab.check(cards[6] + "input[value=Siren]")
    assert saved_corrections(tab)[2] == ["out-of-fold 6.wav", "Siren", ""]


def test_a_choice_of_another_class_counts_once_it_is_made(open_page, doubtful_page):
    tab = open_page(doubtful_page)
    tab.check("#label-issues [data-other] >> nth=0")
    assert tab.is_disabled("#save")


def test_saved_corrections_are_merged_with_those_that_the_run_has_read(open_page):
    train = make_doubtful_split()
    clips = train.predictions.clips
    clips.loc[[0, 4], ["correction", "note"]] = [["confirmed", "clear"], ["dropped", "=1+1"]]
    clips.loc[4, ["status", "label"]] = ["rejected", pd.NA]
    tab = open_page(render([train], pairs=[]))
    tab.check("[data-fname='out-of-fold 5.wav'] >> input[value=Bark]")
    assert saved_corrections(tab) == [
        ["out-of-fold 0.wav", "Bark", "clear"],
        ["out-of-fold 4.wav", "", "=1+1"],
        ["out-of-fold 5.wav", "Bark", ""],
    ]


def test_corrections_are_chosen_by_keyboard(open_page, doubtful_page):
    tab = open_page(doubtful_page)
    tab.focus("#label-issues input[type=radio] >> nth=0")
    tab.keyboard.press("ArrowRight")  # From the label to the suggestion.
    assert saved_corrections(tab) == [["out-of-fold 5.wav", "Meow", ""]]


def test_markup_in_labels_runs_nothing(open_page):
    classes = [ATTACK, *LABELS[1:]]
    train = make_split([*classes, ATTACK], one_hot(0, 1, 2, 3, 1), classes=classes)
    tab = open_page(render([train], pairs=[]))
    tab.select_option("select[name=label]", ATTACK)
    assert shown(tab) == ["out-of-fold 4.wav"]
    assert tab.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page, page, scheme):
    tab = open_page(page, scheme=scheme)
    pairs = tab.evaluate(
        """() => [["body", "body"], [".card .grey", ".card"], [".first .name", ".card"],
                  [".label .name", ".card"], ["select", "select"]].map(([text, background]) =>
            [getComputedStyle(document.querySelector(text)).color,
             getComputedStyle(document.querySelector(background)).backgroundColor])"""
    )
    backgrounds = []
    for text, background in pairs:
        lighter, darker = sorted((luminance(text), luminance(background)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, background)
        backgrounds.append(luminance(background))
    assert all(x > 0.5 if scheme == "light" else x < 0.1 for x in backgrounds)


@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_is_no_wider_than_its_window(open_page, splits, width):
    splits[0].predictions.clips["fname"] = "a" * 200
    tab = open_page(render(splits), width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def luminance(color):
    """Compute the relative luminance of a CSS color, as WCAG defines it."""
    parts = np.array([int(x) for x in color.removeprefix("rgb(").rstrip(")").split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
