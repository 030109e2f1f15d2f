"""Summary features, against the reference, computed by hand and on unusual waves."""

import os
import warnings
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import portalocker
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fsat_kedro.audio import summary_features as summary

SHARED = Path(os.environ.get("FSAT_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "seed_features.npz"


def tone(frequency: float, n_samples: int, amplitude: float = 0.5) -> np.ndarray:
    time = np.arange(n_samples) / 44100
    return (amplitude * np.cos(2 * np.pi * frequency * time)).astype(np.float32)


def noise(seed: int, n_samples: int, amplitude: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, amplitude, n_samples).astype(np.float32)


def features_by_name(wave: np.ndarray) -> dict[str, float]:
    return dict(zip(summary.feature_names(), summary.summary_features(wave).tolist(), strict=True))


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference values at {REFERENCE}")
def test_every_feature_of_every_clip_agrees_with_the_reference():
    with np.load(REFERENCE) as reference:
        paths, intervals = reference["paths"], reference["trim_interval"]
        expected = reference["summary"]
    names = summary.feature_names()
    for path, (start, end), values in zip(paths, intervals, expected, strict=True):
        samples, _ = soundfile.read(SHARED / "data" / path, dtype="float32", always_2d=True)
        ours = summary.summary_features(samples.mean(axis=1)[start:end])
        deviation = np.abs(ours - values) / expected.std(axis=0)
        worst = deviation.argmax()
        assert deviation[worst] < 1e-4, f"{path}: {names[worst]}: {ours[worst]}, {values[worst]}"


def test_names_are_in_the_order_of_the_features():
    names = summary.feature_names()
    assert len(names) == len(set(names)) == 1133
    assert (names[0], names[127], names[128]) == ("mel_mean_000", "mel_mean_127", "mel_std_000")
    assert names[640:642] == ["mfcc_mean_00", "mfcc_mean_01"]
    assert names[935:941] == [
        *(f"rolloff_{statistic}" for statistic in ("mean", "std", "skewness", "max", "min")),
        "centroid_mean",
    ]
    assert names[950:952] == ["tonnetz_mean_0", "tonnetz_mean_1"]
    runs = ["log_run_mean", "log_run_std", "log_run_max", "run_count"]
    assert names[985:997] == [
        *(f"power_above_5_{name}" for name in runs),
        *(f"power_above_25_{name}" for name in runs),
        *("attack_log_time", "decay_log_time", "sign_changes_log_count", "sign_changes_share"),
    ]
    assert [name.removeprefix("spectrum_") for name in names[997:1061]] == [
        *("centre", "bins_above_10", "bins_above_20", "bins_above_50", "bins_above_90"),
        *("bins_above_99", "peak_bin", "low_bins_above_50", "low_bins_above_90"),
        *(f"above_{percent}_{name}" for percent in (10, 20, 50, 90, 99) for name in runs),
        *("slope", "curvature", "intercept", "sum", "mean", "norm", "norm_per_bin"),
        *("peak_slope", "peak_curvature", "peak_intercept"),
        *(f"smoothed_{first_bin:03d}" for first_bin in range(0, 961, 40)),
    ]
    assert names[1061:1065] == [f"wave_{name}_1of1" for name in ("mean", "std", "min", "max")]
    assert (names[1065], names[1073], names[1077]) == (
        *("abs_mean_1of1", "wave_mean_1of2", "wave_mean_2of2"),
    )
    assert names[-1] == "diff_max_3of3"


# Group 1


def test_frame_statistics_come_statistic_by_statistic():
    rows = np.array([[0.0, 0.0, 3.0], [1.0, 1.0, 1.0], [0.0, -0.3, 0.0]])
    mean, std, skewness, largest, smallest = summary.frame_statistics(rows).reshape(5, 3)
    np.testing.assert_allclose(mean, [1, 1, -0.1])
    np.testing.assert_allclose(std, [np.sqrt(2), 0, 0.1 * np.sqrt(2)])
    # The deviations of the first row are -1, -1 and 2, and the mean of their cubes is 2.
    np.testing.assert_allclose(skewness, [2 / 2**1.5, 0, -2 / 2**1.5])
    np.testing.assert_allclose(largest, [3, 1, 0])
    np.testing.assert_allclose(smallest, [0, 1, -0.3])


def test_rows_whose_variance_is_only_rounding_have_no_skewness():
    faint = np.array([[0, 0, 1e-30]], np.float32)
    assert summary.frame_statistics(faint)[1:3].tolist() == [0, 0]
    # The rounded mean differs from 0.1.
    constant = np.full((1, 1000), 0.1, np.float32)
    assert summary.frame_statistics(constant)[2] == 0


def magnitudes(*frames: dict[int, float]) -> np.ndarray:
    """Return frames (1025, t) with the given magnitude of some bins, and 0 elsewhere."""
    result = np.zeros((1025, len(frames)), np.float32)
    for index, frame in enumerate(frames):
        result[list(frame), index] = list(frame.values())
    return result


def test_rolloff_is_the_first_bin_at_which_85_percent_are_reached():
    frames = magnitudes({10: 7}, dict.fromkeys(range(20), 1), {5: 84, 6: 2, 9: 14}, {})
    # 17 of 20 bins are exactly 85 %.
    expected = np.array([[10, 16, 6, 0]]) * 44100 / 2048
    np.testing.assert_allclose(summary.rolloff(frames), expected)


def test_centroid_and_bandwidth_are_mean_and_deviation_of_the_frequency():
    centroid, bandwidth = summary.centroid_and_bandwidth(magnitudes({100: 1, 200: 3}, {}, {50: 2}))
    np.testing.assert_allclose(centroid, np.array([[175, 0, 50]]) * 44100 / 2048)
    # Bins 75 and 25 from the mean, weighted 1 to 3.
    variance = (75**2 + 3 * 25**2) / 4
    expected = np.array([[np.sqrt(variance), 0, 0]]) * 44100 / 2048
    np.testing.assert_allclose(bandwidth, expected, atol=1e-3)


def test_all_samples_of_an_alternating_frame_but_the_first_are_crossings():
    rate = summary.zero_crossing_rate(np.resize(np.array([1, -1], np.float32), 4095))
    # The first two frames begin 1,024 and 512 samples before the wave, where it is extended by its
    # first sample; the last two end 1 and 513 after it.
    crossings = [1023, 1535, *[2047] * 4, 2046, 1534]
    np.testing.assert_allclose(rate, [np.divide(crossings, 2048)])


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


# Groups 2 to 4, by loops


def slow_run_statistics(mask: list[bool]) -> list[float]:
    lengths, length = [], 0
    for inside in [*mask, False]:
        if inside:
            length += 1
        elif length:
            lengths.append(length)
            length = 0
    if not lengths:
        return [0, 0, 0, 0]
    return [*np.log1p([np.mean(lengths), np.std(lengths), max(lengths)]), len(lengths)]


def slow_envelope_features(wave: np.ndarray) -> list[float]:
    # The sums are float32, as in the published solution.
    sums = [np.float32(0)]
    for sample in wave:
        sums.append(sums[-1] + sample * sample)
    power = [(sums[i + 2000] - sums[i]) / np.float32(2000) for i in range(len(wave) - 1999)]
    peak = max(power)
    attack = next(i for i in range(len(power)) if power[i] >= 0.99 * peak)
    decay = next((i for i in range(attack + 1, len(power)) if power[i] < 0.2 * peak), len(wave))
    changes = sum(not (a > 0 < b or a < 0 > b) for a, b in pairwise(wave))
    return [
        *slow_run_statistics([x > 0.05 * peak for x in power]),
        *slow_run_statistics([x > 0.25 * peak for x in power]),
        *np.log1p([attack, decay, changes]),
        changes / len(wave),
    ]


def slow_quadratic_fit(first_bin: int, values: list[float]) -> np.ndarray:
    positions = np.arange(first_bin, first_bin + len(values))
    polynomial = np.polynomial.Polynomial.fit(positions, values, 2)
    return polynomial.convert().coef[[1, 2, 0]]


def slow_spectrum_features(wave: np.ndarray) -> list[float]:
    starts = range(100, len(wave) - 2000, 2000)
    segments = [wave[start : start + 2000].astype(float) for start in starts]
    mean = sum(np.abs(np.fft.fft(segment)) for segment in segments) / len(segments)
    values = np.log(1 + mean[:1000]).tolist()
    peak, peak_bin = max(values), values.index(max(values))
    above = {level: [x > level * peak for x in values] for level in (0.1, 0.2, 0.5, 0.9, 0.99)}
    squares = sum(x * x for x in values)
    start, stop = peak_bin, peak_bin
    while start > 0 and above[0.1][start]:
        start -= 1
    while stop < 1000 and above[0.1][stop]:
        stop += 1
    has_peak = stop < 1000 and stop - start >= 3
    return [
        sum(i * x * x for i, x in enumerate(values)) / squares,
        *(sum(mask) for mask in above.values()),
        peak_bin,
        *(sum(above[level][:50]) for level in (0.5, 0.9)),
        *(x for mask in above.values() for x in slow_run_statistics(mask)),
        *slow_quadratic_fit(0, values),
        *(sum(values), sum(values) / 1000, squares**0.5, squares**0.5 / 1000),
        *(slow_quadratic_fit(start, values[start:stop]) if has_peak else [0, 0, 0]),
        *(sum(values[i : i + 20]) / 20 for i in range(0, 981, 40)),
    ]


def slow_part_features(wave: np.ndarray) -> list[float]:
    wave = wave.astype(float)
    features = []
    for count in (1, 2, 3):
        for signal in (wave, np.abs(wave), wave[1:] - wave[:-1]):
            length = len(signal) // count
            for i in range(count):
                part = signal[i * length : (i + 1) * length]
                features += [part.mean(), part.std(), part.min(), part.max()]
    return features


def pulses(seed: int, n_samples: int) -> np.ndarray:
    """Return noise that dies away three times, the last time without an end."""
    time = np.arange(n_samples) / n_samples
    return noise(seed, n_samples) * np.exp(-8 * (2.7 * time % 1)).astype(np.float32)


WAVES = {
    "pulses": pulses(0, 9000),
    "a tone that grows": tone(700, 6101) * np.linspace(0, 1, 6101, dtype=np.float32),
    "a tone that fades": tone(9000, 8003) * np.linspace(1, 0, 8003, dtype=np.float32) ** 4,
    "low noise": np.cumsum(pulses(1, 7001) - pulses(1, 7001).mean()),
    "one segment": noise(2, 4100),
    "clicks": np.exp(-(np.arange(5000) % 1900) / 9).astype(np.float32),
}


@pytest.mark.parametrize("wave", WAVES.values(), ids=WAVES.keys())
def test_groups_2_to_4_agree_with_plain_loops(wave):
    names = summary.feature_names()[985:]
    features = summary.summary_features(wave)[985:]
    expected = slow_envelope_features(wave) + slow_spectrum_features(wave)
    expected += slow_part_features(wave)
    for name, ours, value in zip(names, features, expected, strict=True):
        assert ours == pytest.approx(value, rel=1e-5, abs=1e-6), name


# Group 2


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
    np.testing.assert_allclose(summary.running_mean(np.array([1.0, 2.0, 6.0]), 3), [3])


def test_running_mean_sums_in_the_dtype_of_its_values():
    # In float32, 2 ** 24 + 1 is 2 ** 24.
    values = np.array([2**24, 1, 1], np.float32)
    means = summary.running_mean(values, 1)
    assert means.dtype == np.float32
    assert means.tolist() == [2**24, 0, 0]
    assert summary.running_mean(values.astype(float), 1).tolist() == [2**24, 1, 1]


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


def test_envelope_features_of_a_burst():
    wave = np.zeros(10000, np.float32)
    wave[4000:8000] = 1
    # The window from i on has this many samples of the burst:
    # i - 2000 from 2000 to 4000; 2000 up to 6000; 8000 - i up to 8000.
    above_5, above_25 = 7899 - 2100, 7499 - 2500
    # 1,980 samples are 99 %, and 399 are the first number under 20 %.
    attack, decay = 3980, 7601
    # All pairs of neighbours but the 3,999 of two ones.
    changes = 9999 - 3999
    np.testing.assert_allclose(
        summary.envelope_features(wave),
        [
            *(np.log1p(above_5), 0, np.log1p(above_5), 1),
            *(np.log1p(above_25), 0, np.log1p(above_25), 1),
            *(*np.log1p([attack, decay, changes]), 0.6),
        ],
    )


def test_sign_changes_count_zeros_as_changes():
    assert summary.sign_changes(np.array([1, -1, 0, 0, 2, 3])) == 4
    assert summary.sign_changes(np.array([1.0, 2.0, 3.0])) == 0


# Group 3


def test_spectrum_of_a_tone_peaks_at_its_bin():
    spectrum = summary.segment_spectrum(tone(50 * 22.05, 10000, amplitude=0.5))
    assert spectrum.argmax() == 50
    assert spectrum[50] == pytest.approx(np.log1p(0.5 * 1000), rel=1e-4)


@pytest.mark.parametrize(("n_samples", "n_segments"), [(4100, 1), (4101, 2), (6100, 2), (6101, 3)])
def test_a_segment_that_ends_with_the_wave_is_left_out(n_samples, n_segments):
    wave = np.zeros(n_samples)
    wave[100::2000] = 1  # A click at the start of each segment has a flat spectrum.
    wave[100 + 2000 * n_segments :] = 99
    np.testing.assert_allclose(summary.segment_spectrum(wave), np.full(1000, np.log(2)))


def test_peak_features_of_two_peaks():
    spectrum = np.zeros(60)
    spectrum[1:6], spectrum[49:51] = [1, 4, 10, 4, 1], [6, 9.5]
    squares = 134 + 6**2 + 9.5**2
    runs_of_3_and_2 = [*np.log1p([2.5, 0.5, 3]), 2]
    features = summary.peak_features(spectrum)
    np.testing.assert_allclose(
        features[:29],
        [
            (1 + 2 * 16 + 3 * 100 + 4 * 16 + 5 + 49 * 6**2 + 50 * 9.5**2) / squares,
            *(5, 5, 3, 2, 1),  # Bins above 1, 2, 5, 9 and 9.9.
            3,
            *(2, 1),  # Of the first 50.
            *runs_of_3_and_2,
            *runs_of_3_and_2,
            *(*np.log1p([1.5, 0.5, 2]), 2),
            *(*np.log1p([1, 0, 1]), 2),
            *(*np.log1p([1, 0, 1]), 1),
        ],
    )
    np.testing.assert_allclose(features[29:32], summary.quadratic_fit(np.arange(60), spectrum))
    norm = np.sqrt(squares)
    np.testing.assert_allclose(features[32:36], [35.5, 35.5 / 60, norm, norm / 60])
    # Bins 1 to 4. With u = bin - 2.5, the best fit of 1, 4, 10, 4 is 7.5625 + 1.5 u - 2.25 u ** 2.
    np.testing.assert_allclose(features[36:], [12.75, -2.25, -10.25])


def test_centre_of_mass_is_the_mean_index():
    assert summary.centre_of_mass(np.array([0.0, 1.0, 0.0, 3.0])) == 2.5
    assert summary.centre_of_mass(np.array([0.0, 2e-300])) == 1
    assert summary.centre_of_mass(np.zeros(4)) == 0


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


@pytest.mark.parametrize(("n_bins", "peak"), [(3, [10, 9, 8]), (4, [10, 9, 8, 0])])
def test_peak_fit_needs_an_end_on_the_right(n_bins, peak):
    expected = [-1, 0, 10] if n_bins == 4 else [0, 0, 0]
    np.testing.assert_allclose(summary.peak_fit(np.array(peak, float)), expected, atol=1e-12)


# Group 4


def test_part_features_of_a_short_wave():
    wave = np.array([1, 3, -2, 0, 4, 2, 9], np.float32)
    # Its differences are 2, -5, 2, 4, -2, 7. Halves and thirds of seven samples leave one out.
    parts = [
        [1, 3, -2, 0, 4, 2, 9],
        [1, 3, 2, 0, 4, 2, 9],
        [2, -5, 2, 4, -2, 7],
        *([1, 3, -2], [0, 4, 2]),
        *([1, 3, 2], [0, 4, 2]),
        *([2, -5, 2], [4, -2, 7]),
        *([1, 3], [-2, 0], [4, 2]),
        *([1, 3], [2, 0], [4, 2]),
        *([2, -5], [2, 4], [-2, 7]),
    ]
    expected = [f(part) for part in parts for f in (np.mean, np.std, np.min, np.max)]
    np.testing.assert_allclose(summary.part_features(wave), expected, atol=1e-12)


def test_part_statistics_worked_by_hand():
    np.testing.assert_allclose(
        summary.part_statistics(np.array([1.0, 3.0, 5.0, 5.0, 99.0]), 2),
        [2, 1, 1, 3, 5, 0, 5, 5],
    )


# Unusual waves


@pytest.mark.parametrize("n_samples", [1, 7, 2100])
def test_a_short_wave_is_padded_with_zeros_at_its_end(n_samples):
    wave = noise(5, n_samples)
    padded = np.append(wave, np.zeros(2101 - n_samples, np.float32))
    np.testing.assert_array_equal(summary.summary_features(wave), summary.summary_features(padded))


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


def test_float64_samples_are_rounded_to_float32_first():
    wave = np.random.default_rng(6).normal(0, 0.1, 3000)
    rounded = summary.summary_features(wave.astype(np.float32))
    np.testing.assert_array_equal(summary.summary_features(wave), rounded)


# Compiling


def is_locked(path: str) -> bool:
    flags = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
    with Path(path).open() as file:
        try:
            portalocker.lock(file, flags)
        except portalocker.LockException:
            return True
    return False


def test_librosa_is_compiled_by_a_second_of_sound_under_a_lock(monkeypatch):
    calls = []

    def record(wave):
        assert wave.shape == (44_100,)
        assert wave.dtype == np.float32
        assert 0 < wave.std() < 1
        calls.append(is_locked(summary.__file__))

    monkeypatch.setattr(librosa.effects, "trim", record)
    monkeypatch.setattr(summary, "summary_features", record)
    summary.compile_librosa()
    assert calls == [True, True]


def test_librosa_is_compiled_where_files_cannot_be_locked(monkeypatch):
    def fail(*_):
        raise portalocker.LockException("not supported")

    calls = []
    monkeypatch.setattr(portalocker, "lock", fail)
    monkeypatch.setattr(summary, "summary_features", calls.append)
    summary.compile_librosa()
    assert len(calls) == 1
