import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from matplotlib.figure import Figure

from fsat_kedro.audio.projection import fit_projector
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets.matplotlib_dataset import MatplotlibDataset
from fsat_kedro.evaluation import metrics
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.parameters import CropLengths, LogMel, Report
from fsat_kedro.pipelines.reporting import create_pipeline, nodes

LABELS = ["Bell", "Drum", "Wind"]
CLASSES = {"labels": LABELS, "prior": [0.4, 0.4, 0.2]}
PHASES = {"cyclic": 4, "low": 2, "high": 3}
# A frame every 10 ms.
LOG_MEL = LogMel(kind="librosa", sample_rate=20_000, n_fft=1024, hop_length=200, n_mels=64)
# Rows are clips: Bell, Bell, Drum, Drum, rejected, Wind.
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1],  # Bell first
        [0.3, 0.6, 0.1],  # Bell second, predicted as Drum
        [0.1, 0.8, 0.1],  # Drum first
        [0.5, 0.2, 0.3],  # Drum third, predicted as Bell
        [np.nan] * 3,
        [0.5, 0.3, 0.2],  # Wind third, predicted as Bell
    ]
)


def make_clips(labels, *, verified, rejected=(), split="train"):
    """Return the clips of a split; the rows in `rejected` are not usable."""
    unusable = np.isin(np.arange(len(labels)), rejected)
    return pd.DataFrame(
        {
            "fname": pd.array([f"{split}_{i}.wav" for i in range(len(labels))], dtype="string"),
            "label": pd.array(labels, dtype="string"),
            "verified": pd.array(verified, dtype="boolean"),
            "status": np.where(unusable, "rejected", "ok"),
            "reason": np.where(unusable, "no samples", ""),
            "length": np.where(unusable, 0, 44_100 * (1 + np.arange(len(labels)))),
        }
    )


def make_history(phases, *, loss=1.0):
    names = [name for name, epochs in phases.items() for _ in range(epochs)]
    losses = loss + 1 / np.arange(1, len(names) + 1)
    return pd.DataFrame(
        {
            "epoch": range(1, len(names) + 1),
            "phase": names,
            "val_loss": losses,
            "val_map_at_3": 1 - losses / 4,
        }
    )


def join_histories(stages):
    """Join the histories of all stages and folds into one table."""
    histories = [
        history.assign(stage=stage, fold=fold)
        for stage, folds in stages.items()
        for fold, history in enumerate(folds, start=1)
    ]
    return pd.concat(histories, ignore_index=True)


def make_ragged(lengths, *shape):
    """Return noise of these lengths."""
    values = np.random.default_rng(0).normal(-40, 10, (sum(lengths), *shape)).astype(np.float32)
    return RaggedArray(values, np.cumsum([0, *lengths]))


def make_sounds(clips):
    """Return audio and log-mels of a split."""
    return make_ragged(clips["length"]), make_ragged(clips["length"] // 441, LOG_MEL.n_mels)


def make_scores(map_at_3, accuracy):
    """Return the scores of five clips, with intervals of 0.1 to each side."""
    ends = [-0.1, 0.1]
    numbers = [5, *[x + end for x in (map_at_3, accuracy) for end in (0, *ends)]]
    return dict(zip(metrics.SCORES, numbers, strict=True))


def make_inputs(n_folds, *, test=True):
    train = make_clips(
        ["Bell", "Bell", "Drum", "Drum", "Drum", "Wind"],
        verified=[True, False, False, False, True, True] if test else [None] * 6,
        rejected=[4],
    )
    audio, mels = make_sounds(train)
    inputs = {
        "train_clips": train,
        "train_audio": audio,
        "train_mels": mels,
        "train_folds": np.array([1, 2, 1, 2, 0, 2]),
        "classes": CLASSES,
        "oof_probabilities": PROBABILITIES,
        "projector": fit_projector(np.random.default_rng(0).normal(size=(9, 12)), 5),
        "mel_statistics": {"minimum": -80, "maximum": 30, "shortest": 100, "longest": 300},
        "params:log_mel": LOG_MEL,
        "params:crop_lengths": CropLengths(percentiles=(25, 75), seconds=None),
        "params:report": Report(max_clips=9, max_seconds=2, max_megabytes=9),
        "params:dataset": "fsdkaggle2018",
        "params:data_dir": "data/mine",
        "cv_scores": {
            **make_scores(0.6, 0.4),
            "per_fold": [
                {"fold": fold, **make_scores(0.75, 0.5)} for fold in range(1, n_folds + 1)
            ],
        },
        "baseline_scores": {"random forest": make_scores(0.65, 0.55)},
        "training_history": join_histories(
            {
                stage: [make_history(PHASES, loss=loss + fold) for fold in range(1, n_folds + 1)]
                for stage, loss in [("mel", 0), ("mel_pca", 20)]
            }
        ),
    }
    if test:
        inputs["test_clips"] = make_clips(
            ["Wind", "Bell", None], verified=[None] * 3, rejected=[0, 2], split="test"
        )
        inputs["test_audio"], inputs["test_mels"] = make_sounds(inputs["test_clips"])
        inputs["fold_test_scores"] = pd.DataFrame(
            [{"fold": fold, **make_scores(0.5, 0.5)} for fold in range(1, n_folds + 1)]
        )
        private, pooled = make_scores(0.7, 0.5), make_scores(0.8, 0.6)
        inputs["test_scores"] = {
            score: {"private": private[score], "pooled": pooled[score]} for score in metrics.SCORES
        }
        # Wind, which is rejected, second; Bell first; and a clip without a label.
        inputs["test_probabilities"] = np.array([[0.5, 0.1, 0.4], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2]])
    return inputs


def run(inputs, splits):
    """Run the pipeline without the report, and return its outputs."""
    pipeline = create_pipeline(splits, summary_features=True)
    pipeline -= pipeline.only_nodes("reporting.write_report")
    catalog = DataCatalog({name: MemoryDataset(data) for name, data in inputs.items()})
    outputs = SequentialRunner().run(pipeline, catalog)
    return {name: dataset.load() for name, dataset in outputs.items()}


def write_page(inputs, splits, folder):
    catalog = DataCatalog({name: MemoryDataset(data) for name, data in inputs.items()})
    for plot in nodes.PLOTS:
        path = str(folder / f"{plot}.png")
        catalog[plot] = MatplotlibDataset(filepath=path, save_args={"dpi": 150})
    return (
        SequentialRunner()
        .run(create_pipeline(splits, summary_features=True), catalog)["report"]
        .load()
    )


@pytest.fixture(scope="module")
def reports():
    return run(make_inputs(2), ["train", "test"])


def require_drawable(figure):
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    return figure


# Tables


def test_scores_of_each_class_worked_by_hand(reports):
    scores = reports["class_scores"].set_index("label")
    assert list(scores.index) == LABELS
    assert scores["clips"].tolist() == [2, 2, 1]
    assert scores["verified"].tolist() == [0.5, 0, 1]
    # Bell: ranks 1 and 2; Drum: 1 and 3; Wind: 3.
    np.testing.assert_allclose(scores["map_at_3"], [(1 + 1 / 2) / 2, (1 + 1 / 3) / 2, 1 / 3])
    # Predicted as Bell: clips 1, 4 and 6; as Drum: 2 and 3; as Wind: none.
    np.testing.assert_allclose(scores["precision"], [1 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(scores["recall"], [1 / 2, 1 / 2, 0])


def test_classes_average_to_the_score_of_all_clips(reports):
    scores = reports["class_scores"]
    usable = ~np.isnan(PROBABILITIES[:, 0])
    targets = np.array([0, 0, 1, 1, 2])
    pooled = np.average(scores["map_at_3"], weights=scores["clips"])
    assert pooled == pytest.approx(metrics.map_at_k(targets, PROBABILITIES[usable]))


def test_rows_of_the_table_of_scores(reports):
    scores = reports["scores"].set_index("clips")
    parts = ["fold 1", "fold 2", "cross-validation", "test private", "test pooled"]
    assert list(scores.index) == [*parts, "baseline, random forest"]
    assert scores["map_at_3"].tolist() == [0.75, 0.75, 0.6, 0.7, 0.8, 0.65]
    assert scores["accuracy"].tolist() == [0.5, 0.5, 0.4, 0.5, 0.6, 0.55]
    assert scores["n_clips"].tolist() == [5] * 6
    np.testing.assert_allclose(scores["map_at_3_low"], scores["map_at_3"] - 0.1)
    np.testing.assert_allclose(scores["accuracy_high"], scores["accuracy"] + 0.1)


def test_scores_of_verified_clips_have_a_row_if_there_are_any():
    inputs = make_inputs(2, test=False)
    inputs["cv_scores"]["verified"] = make_scores(0.9, 0.8)
    scores = run(inputs, ["train"])["scores"].set_index("clips")
    assert scores.loc["cross-validation, verified clips", "map_at_3"] == 0.9


def test_scores_of_each_class_over_labelled_test_clips(reports):
    scores = reports["test_class_scores"].set_index("label")
    assert scores["clips"].tolist() == [1, 0, 1]
    np.testing.assert_allclose(scores["map_at_3"], [1, np.nan, 1 / 2])
    np.testing.assert_allclose(scores["precision"], [1 / 2, np.nan, np.nan])
    np.testing.assert_allclose(scores["recall"], [1, np.nan, 0])


def test_without_a_labelled_test_clip_the_table_of_its_classes_is_empty():
    inputs = make_inputs(2)
    inputs["test_clips"]["label"] = pd.NA
    inputs["test_scores"] = {score: {} for score in metrics.SCORES}
    reports = run(inputs, ["train", "test"])
    columns = ["label", "clips", "map_at_3", "precision", "recall"]
    assert list(reports["test_class_scores"]) == columns
    assert reports["test_class_scores"].empty
    parts = ["fold 1", "fold 2", "cross-validation", "baseline, random forest"]
    assert reports["scores"]["clips"].tolist() == parts


def test_confused_pairs_worked_by_hand(reports):
    pairs = reports["confused_pairs"]
    assert pairs["true"].tolist() == ["Bell", "Drum", "Wind"]
    assert pairs["predicted"].tolist() == ["Drum", "Bell", "Bell"]
    assert pairs["clips"].tolist() == [1, 1, 1]
    assert pairs["fraction"].tolist() == [1 / 2, 1 / 2, 1]


# Plots


@pytest.mark.parametrize("n_folds", [2, 10])
def test_every_fold_has_a_curve_of_each_metric_in_each_stage(n_folds):
    stages = [[make_history(PHASES, loss=fold) for fold in range(n_folds)] for _ in range(2)]
    stages[1] = [history.assign(val_loss=history["val_loss"] + 20) for history in stages[1]]
    figure = require_drawable(
        nodes.draw_learning_curves(join_histories({"mel": stages[0], "mel_pca": stages[1]}))
    )
    loss_mel, loss_mel_pca, map_mel, map_mel_pca = figure.axes
    for axes, folds, metric in [
        (loss_mel, stages[0], "val_loss"),
        (loss_mel_pca, stages[1], "val_loss"),
        (map_mel, stages[0], "val_map_at_3"),
        (map_mel_pca, stages[1], "val_map_at_3"),
    ]:
        assert len(axes.get_lines()) == n_folds
        for line, history in zip(axes.get_lines(), folds, strict=True):
            np.testing.assert_allclose(line.get_ydata(), history[metric])
            np.testing.assert_array_equal(line.get_xdata(), history["epoch"])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"fold {fold}" for fold in range(1, n_folds + 1)]


def test_each_history_is_drawn_in_its_stage_and_order(reports):
    mel, mel_pca, *_ = require_drawable(reports["learning_curves"]).axes
    assert mel.get_title(loc="left") == "stage mel"
    assert [line.get_ydata()[0] for line in mel.get_lines()] == [2, 3]
    assert mel_pca.get_title(loc="left") == "stage mel_pca"
    assert [line.get_ydata()[0] for line in mel_pca.get_lines()] == [22, 23]


def test_phases_are_aligned_across_folds():
    short, long = make_history({**PHASES, "low": 1}), make_history({**PHASES, "low": 5})
    figure = nodes.draw_learning_curves(join_histories({"mel": [short, long]}))
    first, second = figure.axes[0].get_lines()
    # Four cyclic epochs, then five low ones; the short fold lacks four of them.
    assert np.flatnonzero(np.isnan(first.get_ydata())).tolist() == [5, 6, 7, 8]
    np.testing.assert_allclose(first.get_ydata()[9:], short["val_loss"][5:])
    np.testing.assert_allclose(second.get_ydata(), long["val_loss"])


def test_a_phase_of_no_epochs_is_left_out():
    history = make_history({"cyclic": 3, "high": 2})
    figure = require_drawable(nodes.draw_learning_curves(join_histories({"mel": [history] * 2})))
    assert [text.get_text() for text in figure.axes[0].texts] == ["cyclic", "high"]


def test_rows_of_the_confusion_matrix_are_fractions_of_the_true_class(reports):
    axes = require_drawable(reports["confusion_matrix"]).axes[0]
    expected = [[0.5, 0.5, 0], [0.5, 0.5, 0], [1, 0, 0]]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert [text.get_text() for text in axes.get_yticklabels()] == LABELS


def test_the_kept_components_and_their_variance_are_shown(reports):
    axes = require_drawable(reports["explained_variance"]).axes[0]
    explained = axes.get_lines()[0].get_ydata()
    assert len(explained) == 1 + 5
    assert explained[0] == 0
    assert (np.diff(explained) > 0).all()
    assert axes.get_title(loc="right").startswith(f"5 components kept: {explained[-1]:.1%}")


def test_bars_are_clips_and_the_most_frequent_class_is_on_top():
    clips = make_clips(
        ["Wind", "Bell", "Wind", "Wind", "Drum", "Drum"],
        verified=[True, True, False, False, False, None],
        rejected=[5],
    )
    axes = require_drawable(nodes.draw_class_balance(clips)).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Wind", "Bell", "Drum"]
    bottom, top = axes.get_ylim()
    assert bottom > top
    verified, unverified = axes.containers
    assert [bar.get_width() for bar in verified] == [1, 1, 0]
    assert [bar.get_width() for bar in unverified] == [2, 0, 1]
    assert [bar.get_x() for bar in unverified] == [1, 1, 0]


def test_lengths_are_in_seconds_and_crop_lengths_are_marked(reports):
    axes = require_drawable(reports["clip_lengths"]).axes[0]
    # 100 and 300 frames of 10 ms.
    assert [line.get_xdata()[0] for line in axes.get_lines()] == pytest.approx([1, 3])
    train, test = (patch for patch in axes.patches if hasattr(patch, "get_data"))
    values, edges, _ = train.get_data()
    assert values.sum() == pytest.approx(1)
    assert edges[-1] == pytest.approx(6)
    # The only usable test clip is 2 s long.
    values, edges, _ = test.get_data()
    bin_ = values.argmax()
    assert values[bin_] == 1
    assert edges[bin_] <= 2 <= edges[bin_ + 1]


def test_a_split_of_rejected_clips_has_no_lengths():
    train = make_clips(["Bell", "Drum"], verified=[None] * 2)
    test = make_clips(["Bell"], verified=[None], rejected=[0], split="test")
    statistics = {"shortest": 100, "longest": 100}
    figure = nodes.draw_clip_lengths(
        statistics,
        LOG_MEL,
        CropLengths(percentiles=(25, 75), seconds=None),
        train,
        test,
    )
    names = [text.get_text() for text in require_drawable(figure).axes[0].get_legend().get_texts()]
    assert [name.split(",")[0] for name in names] == ["crop lengths", "train"]


def test_the_percentiles_of_the_crop_lengths_are_named(reports):
    texts = [text.get_text() for text in reports["clip_lengths"].axes[0].texts]
    assert texts == ["25 %", "75 %"]


def test_classes_are_drawn_worst_first_with_their_clips(reports):
    axes = require_drawable(reports["scores_by_class"]).axes[0]
    # 1/3 of Wind, (1 + 1/3) / 2 of Drum, (1 + 1/2) / 2 of Bell.
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Wind", "Drum", "Bell"]
    widths = [bar.get_width() for bar in axes.containers[0]]
    np.testing.assert_allclose(widths, [1 / 3, 2 / 3, 3 / 4])
    # Wind second, no Drum, Bell first.
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [1 / 2, np.nan, 1])
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == ["1", "2", "2", "train\nclips", "1", "0", "1", "test\nclips"]


def test_folds_are_drawn_beside_all_folds_together(reports):
    out_of_fold, test = require_drawable(reports["scores_by_fold"]).axes
    assert out_of_fold.texts[0].get_text() == "all folds: 0.600 (0.500 to 0.700)"
    assert test.texts[0].get_text() == "ensemble: 0.800 (0.700 to 0.900)"
    for axes, score in ((out_of_fold, 0.75), (test, 0.5)):
        np.testing.assert_allclose(axes.get_lines()[1].get_xdata(), [score] * 2)
        assert axes.get_lines()[1].get_ydata().tolist() == [1, 2]


def test_without_a_labelled_test_clip_folds_are_drawn_out_of_fold_only():
    inputs = make_inputs(3)
    inputs["test_clips"]["label"] = pd.NA
    inputs["test_scores"] = {score: {} for score in metrics.SCORES}
    inputs["fold_test_scores"] = inputs["fold_test_scores"].head(0)
    reports = run(inputs, ["train", "test"])
    assert len(require_drawable(reports["scores_by_fold"]).axes) == 1
    assert len(require_drawable(reports["reliability"]).axes[0].containers) == 1
    assert require_drawable(reports["scores_by_class"]).axes[0].get_lines() == []
    assert set(reports["misclassified_clips"]["split"]) == {"train"}


def test_reliability_is_that_of_the_first_tag(reports):
    out_of_fold, test = require_drawable(reports["reliability"]).axes[0].containers
    # Three of five first tags are wrong; that of the one usable labelled test clip is correct.
    line = out_of_fold.lines[0]
    np.testing.assert_allclose(line.get_xdata(), [np.mean([0.7, 0.6, 0.8, 0.5, 0.5])])
    np.testing.assert_allclose(line.get_ydata(), [2 / 5])
    np.testing.assert_allclose(test.lines[0].get_xydata(), [[0.6, 1]])


def test_the_gallery_has_an_exemplar_of_each_class_over_its_length(reports):
    bell, drum, wind = require_drawable(reports["mel_gallery"]).axes
    # The first Bell is verified. The verified Drum is rejected; the first of the others remains.
    assert [axes.get_title(loc="left") for axes in (bell, drum, wind)] == LABELS
    assert [axes.get_title(loc="right") for axes in (bell, drum, wind)] == [
        "1.0 s",
        "3.0 s",
        "6.0 s",
    ]


def test_the_gallery_shows_80_db_of_any_log_mel():
    kaldi = LogMel(kind="kaldi", sample_rate=20_000, n_fft=1024, hop_length=200, n_mels=64)
    mels = make_ragged([40] * 3, LOG_MEL.n_mels)
    predictions = Predictions(np.eye(3), make_clips(LABELS, verified=[None] * 3), LABELS)
    for log_mel, decibels in ((LOG_MEL, 1), (kaldi, 10 / np.log(10))):
        for row, axes in enumerate(nodes.draw_mel_gallery(predictions, mels, log_mel).axes[:3]):
            (image,) = axes.get_images()
            np.testing.assert_allclose(image.get_array(), mels[row].T * decibels, rtol=1e-6)
            assert np.ptp(image.get_clim()) == pytest.approx(80)


def test_labels_are_drawn_literally_not_as_formulas():
    labels = ["$\\frac$", "_under", "a" * 300]
    clips = make_clips(labels, verified=[None] * 3)
    predictions = Predictions(np.eye(3), clips, labels)
    mels = make_ragged([40] * 3, LOG_MEL.n_mels)
    for figure in (
        nodes.draw_class_balance(clips),
        nodes.draw_confusion_matrix(predictions),
        nodes.draw_scores_by_class(predictions),
        nodes.draw_mel_gallery(predictions, mels, LOG_MEL),
    ):
        assert require_drawable(figure)


@pytest.mark.parametrize("n_folds", [2, 50])
def test_one_class_can_be_drawn(n_folds):
    inputs = make_inputs(n_folds, test=False)
    inputs["train_clips"]["label"] = "Bell"
    inputs["classes"] = {"labels": ["Bell"], "prior": [1]}
    inputs["oof_probabilities"] = np.where(np.isnan(PROBABILITIES[:, :1]), np.nan, 1)
    reports = run(inputs, ["train"])
    assert reports["misclassified_clips"].empty
    for report in reports.values():
        if isinstance(report, Figure):
            require_drawable(report)


def test_misclassified_clips_of_all_splits_are_listed(reports):
    misclassified = reports["misclassified_clips"]
    assert misclassified["split"].tolist() == ["train"] * 3
    assert misclassified["fname"].tolist() == ["train_1.wav", "train_3.wav", "train_5.wav"]
    assert misclassified["fold"].tolist() == [2, 2, 2]


# The report


def test_the_report_shows_scores_plots_and_misclassified_clips(tmp_path):
    page = write_page(make_inputs(2), ["train", "test"], tmp_path)
    assert "<title>mine: report</title>" in page
    titles = [plot.title for plot in nodes.PLOTS.values() if plot.title]
    assert page.count("<figure") == len(titles) > 0
    assert all(f"<h3>{title}</h3>" in page for title in titles)
    assert page.count('<article class="card clip"') == 3
    assert "0.500 to 0.700" in page
    assert "6 training clips, 1 rejected" in page
    assert "3 test clips, 2 rejected, 2 labelled" in page


def test_the_report_of_a_data_set_without_test_clips(tmp_path):
    page = write_page(make_inputs(2, test=False), ["train"], tmp_path)
    assert page.count('<article class="card clip"') == 3
    assert "test clips" not in page
    assert 'name="verified"' not in page


# The pipeline


def test_without_verified_and_without_a_test_split():
    reports = run(make_inputs(10, test=False), ["train"])
    assert "test_class_scores" not in reports
    assert reports["class_scores"]["verified"].isna().all()
    assert reports["scores"]["clips"].tolist()[-3:-1] == ["fold 10", "cross-validation"]
    balance = require_drawable(reports["class_balance"])
    assert len(balance.axes[0].containers) == 1
    assert not balance.legends


def test_outputs_have_plain_names_and_nodes_one_namespace():
    pipeline = create_pipeline(["train", "test"], summary_features=True)
    assert all("." not in name for name in pipeline.all_outputs())
    assert {node.namespace for node in pipeline.nodes} == {"reporting"}
    assert set(nodes.PLOTS) <= pipeline.all_outputs()


@pytest.mark.parametrize("splits", [["train"], ["train", "test"]])
def test_no_node_has_more_than_seven_inputs_besides_plots(splits):
    for node in create_pipeline(splits, summary_features=True).nodes:
        assert len(set(node.inputs) - set(nodes.PLOTS)) <= 7


def test_a_registered_plot_becomes_a_node_without_inputs_that_the_data_set_lacks(monkeypatch):
    monkeypatch.setattr(nodes, "PLOTS", dict(nodes.PLOTS))

    @nodes.register_plot("train_clips", "test_clips", title="New", caption="How to read it.")
    def draw_new_plot(train_clips, test_clips=None):
        return Figure()

    for splits, inputs in (
        (["train", "test"], ["train_clips", "test_clips"]),
        (["train"], ["train_clips"]),
    ):
        pipeline = create_pipeline(splits, summary_features=True)
        (node,) = pipeline.only_nodes_with_outputs("new_plot").nodes
        assert node.inputs == inputs
        (page,) = pipeline.only_nodes_with_outputs("report").nodes
        assert "new_plot" in page.inputs
