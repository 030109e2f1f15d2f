"""Summary features, against the reference, computed by hand and on unusual waves; the PCA."""

import os
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fsat_kedro.audio import summary_features as summary

SHARED = Path(os.environ.get("FSAT_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "seed_features.npz"
NAMES = summary.feature_names()


def tone(frequency: float, n_samples: int, amplitude: float = 0.5) -> np.ndarray:
    time = np.arange(n_samples) / 44100
    return (amplitude * np.cos(2 * np.pi * frequency * time)).astype(np.float32)


def noise(seed: int, n_samples: int, amplitude: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, amplitude, n_samples).astype(np.float32)


def features_by_name(wave: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, summary.summary_features(wave).tolist(), strict=True))


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference values at {REFERENCE}")
def test_every_feature_of_every_clip_agrees_with_the_reference():
    with np.load(REFERENCE) as reference:
        paths, intervals = reference["paths"], reference["trim_interval"]
        expected = reference["summary"]
    for path, (start, end), values in zip(paths, intervals, expected, strict=True):
        samples, _ = soundfile.read(SHARED / "data" / path, dtype="float32", always_2d=True)
        ours = summary.summary_features(samples.mean(axis=1)[start:end])
        deviation = np.abs(ours - values) / expected.std(axis=0)
        worst = deviation.argmax()
        assert deviation[worst] < 1e-4, f"{path}: {NAMES[worst]}: {ours[worst]}, {values[worst]}"


def test_names_are_unique_and_in_the_order_of_the_groups():
    assert len(NAMES) == len(set(NAMES)) == 1133
    assert (NAMES[0], NAMES[127], NAMES[128]) == ("mel_mean_000", "mel_mean_127", "mel_std_000")
    assert NAMES.index("mfcc_mean_00") == 640
    assert NAMES.index("power_above_5_log_run_mean") == 985
    assert NAMES.index("attack_log_time") == 993
    assert NAMES.index("spectrum_centre") == 997
    assert NAMES.index("spectrum_smoothed_000") == 1036
    assert NAMES.index("wave_mean_1of1") == 1061
    assert NAMES[-1] == "diff_max_3of3"


def test_frame_statistics_come_statistic_by_statistic():
    rows = np.array([[0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    mean, std, skewness, largest, smallest = summary.frame_statistics(rows).reshape(5, 2)
    np.testing.assert_allclose(mean, [1, 1])
    np.testing.assert_allclose(std, [np.sqrt(2), 0])
    np.testing.assert_allclose(skewness, [2 / 2**1.5, 0])
    np.testing.assert_allclose(largest, [3, 1])
    np.testing.assert_allclose(smallest, [0, 1])


def test_centroid_of_a_tone_is_its_frequency_within_a_bin():
    frames = summary.frame_features(tone(3000, 22050))
    inner = frames["centroid"][0, 3:-3]
    np.testing.assert_allclose(inner, 3000, atol=44100 / 2048)


@pytest.mark.parametrize("n_samples", [2101, 66_151])
def test_frame_features_equal_librosa(n_samples):
    wave = tone(440, n_samples) + noise(1, n_samples)
    wave[: n_samples // 3] = 0
    rows = summary.frame_features(wave)
    spectral = {"S": np.abs(librosa.stft(wave)), "sr": 44100}
    expected = {
        "mel": librosa.feature.melspectrogram(**spectral),
        "mfcc": librosa.feature.mfcc(**spectral, n_mfcc=40),
        "chroma": librosa.feature.chroma_stft(**spectral),
        "contrast": librosa.feature.spectral_contrast(**spectral),
        "rolloff": librosa.feature.spectral_rolloff(**spectral),
        "centroid": librosa.feature.spectral_centroid(**spectral),
        "bandwidth": librosa.feature.spectral_bandwidth(**spectral),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(wave),
    }
    for family, values in expected.items():
        np.testing.assert_allclose(
            rows[family], values, rtol=1e-4, atol=1e-5 * np.abs(values).max(), err_msg=family
        )
        assert len(values) == summary.FAMILY_ROWS[family]


@pytest.mark.parametrize(
    ("mask", "mean", "std", "longest", "count"),
    [
        ([0, 1, 1, 0, 1, 1, 1, 1, 0], 3, 1, 4, 2),
        ([1, 0, 0, 1, 1, 1], 2, 1, 3, 2),
        ([1, 1, 1], 3, 0, 3, 1),
        ([0, 0, 0], 0, 0, 0, 0),
    ],
)
def test_run_statistics(mask, mean, std, longest, count):
    expected = [*np.log1p([mean, std, longest]), count]
    np.testing.assert_allclose(summary.run_statistics(np.array(mask, dtype=bool)), expected)


def test_running_mean_covers_full_windows_only():
    means = summary.running_mean(np.array([1.0, 2.0, 3.0, 6.0]), 2)
    np.testing.assert_allclose(means, [1.5, 2.5, 4.5])


@pytest.mark.parametrize(
    ("power", "attack", "decay"),
    [
        ([0.0, 0.5, 0.995, 1.0, 0.5, 0.1, 0.3, 0.1], 2, 5),
        ([0.1, 0.15, 0.5, 1.0, 0.9], 3, 100),
        ([1.0, 0.2, 0.8], 0, 100),
        ([0.0, 0.0], 0, 100),
    ],
)
def test_attack_and_decay_time(power, attack, decay):
    assert summary.attack_time(np.array(power)) == attack
    assert summary.decay_time(np.array(power), 100) == decay


def test_attack_of_a_burst_is_the_time_until_the_window_is_full():
    wave = np.zeros(10000, np.float32)
    wave[4000:8000] = 1
    # A window that starts at 2,000 + i has i + 1 samples of the burst; 1,980 are 99 %.
    features = features_by_name(wave)
    assert np.expm1(features["attack_log_time"]) == pytest.approx(2000 + 1980, abs=1)
    # It falls under 20 %, 400 samples, once it starts after sample 7,600.
    assert np.expm1(features["decay_log_time"]) == pytest.approx(7601, abs=1)
    assert features["power_above_25_run_count"] == 1


def test_sign_changes_count_zeros_as_changes():
    assert summary.sign_changes(np.array([1, -1, 0, 0, 2, 3])) == 4
    assert summary.sign_changes(np.array([1.0, 2.0, 3.0])) == 0


def test_spectrum_of_a_tone_peaks_at_its_bin():
    spectrum = summary.segment_spectrum(tone(50 * 22.05, 10000, amplitude=0.5))
    assert spectrum.argmax() == 50
    assert spectrum[50] == pytest.approx(np.log1p(0.5 * 1000), rel=1e-4)


@pytest.mark.parametrize(("n_samples", "n_segments"), [(4100, 1), (4101, 2), (6100, 2), (6101, 3)])
def test_a_segment_that_ends_with_the_wave_is_left_out(n_samples, n_segments):
    wave = noise(3, n_samples)
    segments = [wave[100 + 2000 * i :][:2000].astype(float) for i in range(n_segments)]
    expected = np.log1p(np.mean([np.abs(np.fft.fft(s)) for s in segments], axis=0)[:1000])
    np.testing.assert_allclose(summary.segment_spectrum(wave), expected, rtol=1e-12)


def test_peak_features_of_a_triangle():
    spectrum = np.zeros(1000)
    spectrum[98:103] = [1, 2, 3, 2, 1]
    names = [name.removeprefix("spectrum_") for name in NAMES[997:1036]]
    features = dict(zip(names, summary.peak_features(spectrum), strict=True))
    assert features["centre"] == pytest.approx(100)
    assert [features[f"bins_above_{p}"] for p in (10, 20, 50, 90, 99)] == [5, 5, 3, 1, 1]
    assert features["peak_bin"] == 100
    assert features["low_bins_above_50"] == features["low_bins_above_90"] == 0
    assert features["above_50_log_run_max"] == pytest.approx(np.log(4))
    assert (features["sum"], features["mean"]) == pytest.approx((9, 0.009))
    assert features["norm"] == pytest.approx(np.sqrt(19))
    assert features["norm_per_bin"] == pytest.approx(np.sqrt(19) / 1000)


def test_quadratic_fit_finds_a_known_parabola():
    positions = np.arange(1000)
    values = 3 - 2 * positions + 0.5 * positions**2
    np.testing.assert_allclose(summary.quadratic_fit(positions, values), [-2, 0.5, 3], rtol=1e-6)


def test_peak_fit_includes_the_left_end_but_not_the_right_end():
    bins = np.arange(40)
    parabola = np.maximum(25 - (bins - 10.0) ** 2, 0)
    exact = [20, -1, -75]
    np.testing.assert_allclose(summary.peak_fit(parabola), exact)
    right, left = parabola.copy(), parabola.copy()
    right[15] = left[5] = 2
    np.testing.assert_allclose(summary.peak_fit(right), exact)
    assert summary.peak_fit(left)[0] < 19.9


def test_peak_fit_starts_at_bin_0_but_must_end_before_the_last_bin():
    bins = np.arange(40)
    left, right = 900 - (bins - 5.0) ** 2, 900 - (bins - 30.0) ** 2
    np.testing.assert_allclose(summary.peak_fit(left), [10, -1, 875])
    np.testing.assert_array_equal(summary.peak_fit(right), [0, 0, 0])


@pytest.mark.parametrize("peak", [0, 20, 39])
def test_peak_fit_of_a_single_bin_is_zero(peak):
    np.testing.assert_array_equal(summary.peak_fit(np.eye(40)[peak]), [0, 0, 0])


def test_part_features_of_a_short_wave():
    wave = np.array([1, 3, -2, 0, 4, 2], dtype=np.float32)
    features = dict(zip(NAMES[1061:], summary.part_features(wave), strict=True))
    expected = {
        "wave_mean_1of1": 4 / 3,
        "wave_min_1of1": -2,
        "abs_mean_1of1": 2,
        "wave_mean_1of2": 2 / 3,
        "wave_max_2of2": 4,
        "wave_std_1of3": 1,
        "wave_mean_3of3": 3,
        "abs_mean_2of3": 1,
        # Differences 2, -5, 2, 4, -2: halves of two, thirds of one.
        "diff_mean_1of1": 0.2,
        "diff_mean_1of2": -1.5,
        "diff_mean_2of2": 3,
        "diff_max_2of3": -5,
        "diff_std_3of3": 0,
    }
    assert {name: features[name] for name in expected} == pytest.approx(expected)


@st.composite
def unusual_waves(draw):
    n_samples = draw(st.integers(1, 5000))
    level = draw(st.sampled_from([0.0, 1e-30, 1e-4, 1.0, -1.0]))
    kind = draw(st.sampled_from(["constant", "noise", "click", "alternating"]))
    wave = {
        "constant": np.full(n_samples, level),
        "noise": level * noise(draw(st.integers(0, 9)), n_samples),
        "click": level * (np.arange(n_samples) == n_samples // 2),
        "alternating": level * np.resize([1, -1], n_samples),
    }[kind]
    return wave.astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(unusual_waves())
def test_unusual_waves_give_finite_features_without_a_warning(wave):
    before = wave.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = summary.summary_features(wave)
    assert features.shape == (1133,)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(wave, before)


def test_silence_has_no_peak_and_no_runs():
    features = features_by_name(np.zeros(5000, np.float32))
    assert features["spectrum_centre"] == features["spectrum_peak_slope"] == 0
    assert features["spectrum_low_bins_above_90"] == 0
    assert features["power_above_5_run_count"] == 0
    assert features["mel_skewness_000"] == 0


@pytest.mark.parametrize("shape", [(0,), (2, 5000)])
def test_a_wave_without_samples_or_with_channels_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        summary.summary_features(np.zeros(shape, np.float32))


@given(st.integers(0, 99), st.integers(-12, 4))
@settings(max_examples=15, deadline=None)
def test_gain_scales_the_parts_and_leaves_the_envelope(seed, exponent):
    wave = noise(seed, 6000) * np.linspace(0, 1, 6000, dtype=np.float32)
    gain = np.float32(2.0**exponent)
    louder = gain * wave
    np.testing.assert_array_equal(
        summary.envelope_features(louder), summary.envelope_features(wave)
    )
    np.testing.assert_allclose(
        summary.part_features(louder), gain * summary.part_features(wave), rtol=1e-12
    )


def test_components_are_uncorrelated_with_decreasing_variance(rng):
    features = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)) + 5
    components = summary.fit_projector(features, 5).transform(features)
    covariance = np.cov(components.T)
    variances = np.diag(covariance)
    assert components.shape == (60, 5)
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-10)
    assert (np.diff(variances) < 0).all()


def test_projector_ignores_the_unit_of_a_feature(rng):
    features = rng.normal(size=(30, 6))
    scaled = features * [1, 10, 1e3, 1e-3, 1, 1]
    components = [summary.fit_projector(f, 4).transform(f) for f in (features, scaled)]
    np.testing.assert_allclose(components[0], components[1], atol=1e-10)


@pytest.mark.parametrize(("n_clips", "n_features", "n_kept"), [(5, 1133, 4), (50, 8, 8)])
def test_projector_keeps_at_most_the_possible_number_of_components(
    rng, n_clips, n_features, n_kept
):
    features = rng.normal(size=(n_clips, n_features))
    components = summary.fit_projector(features, 350).transform(features)
    assert components.shape == (n_clips, n_kept)
    assert (components.std(axis=0) > 1e-3).all()


def test_one_clip_is_too_few_for_a_projector():
    with pytest.raises(ValueError, match="at least 2 clips, got 1"):
        summary.fit_projector(np.zeros((1, 1133)), 350)
