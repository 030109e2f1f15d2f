"""Summary features, 1,133 numbers per clip.

Axes: n samples, t frames of the STFT, f frequency bins of a frame, k rows of a feature family,
b bins of the mean segment spectrum.

The definitions are those of the published 8th-place solution of the Freesound General-Purpose
Audio Tagging Challenge. All waves are at 44.1 kHz.
"""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import librosa
import numpy as np
import portalocker
import scipy.fft

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.harmonic import HOP_LENGTH, N_FFT, estimate_tuning, harmonic_wave, tonnetz
from fsat_kedro.audio.log_mel import mel_filterbank
from fsat_kedro.audio.stft import stft

FAMILY_ROWS = {
    "mel": 128,
    "mfcc": 40,
    "chroma": 12,
    "contrast": 7,
    "rolloff": 1,
    "centroid": 1,
    "bandwidth": 1,
    "tonnetz": 6,
    "zero_crossing_rate": 1,
}
FRAME_STATISTICS = ("mean", "std", "skewness", "max", "min")
ROLLOFF_FRACTION = 0.85

POWER_WINDOW = 2000
POWER_LEVELS = (0.05, 0.25)
ATTACK_LEVEL = 0.99
DECAY_LEVEL = 0.20

SEGMENT_START = 100
SEGMENT_LENGTH = 2000
SPECTRUM_BINS = 1000
PEAK_LEVELS = (0.10, 0.20, 0.50, 0.90, 0.99)
LOW_BINS = 50
LOW_LEVELS = (0.50, 0.90)
SMOOTHING = 20
SMOOTHED_STEP = 40

RUN_STATISTICS = ("log_run_mean", "log_run_std", "log_run_max", "run_count")
FIT_TERMS = ("slope", "curvature", "intercept")
PART_COUNTS = (1, 2, 3)
PART_SIGNALS = ("wave", "abs", "diff")
PART_STATISTICS = ("mean", "std", "min", "max")

# A segment counts where at least one sample follows it.
MIN_SAMPLES = SEGMENT_START + SEGMENT_LENGTH + 1


def summary_features(wave: np.ndarray) -> np.ndarray:
    """Compute the 1,133 summary features of a wave, named by `feature_names`.

    A wave shorter than 2,101 samples, one segment, is padded with zeros at its end first.
    Silence and constants give finite values: the skewness of a constant row is 0, and so are the
    features of a peak where there is none.

    Args:
        wave: (n,) finite samples in -1..1 at 44.1 kHz, n >= 1.

    Returns:
        (1133,) float32, all finite.

    Raises:
        ValueError: If the wave is empty or not one-dimensional.
    """
    if wave.ndim != 1 or wave.size == 0:
        raise ValueError(f"wave must have shape (n,) with n >= 1, got {wave.shape}")
    wave = np.pad(wave.astype(np.float32), (0, max(0, MIN_SAMPLES - wave.size)))
    rows = frame_features(wave)
    spectrum = segment_spectrum(wave)
    groups = [
        *(frame_statistics(rows[family]) for family in FAMILY_ROWS),
        envelope_features(wave),
        peak_features(spectrum),
        running_mean(spectrum, SMOOTHING)[::SMOOTHED_STEP],
        part_features(wave),
    ]
    return np.concatenate(groups).astype(np.float32)


def compile_librosa() -> None:
    """Compile librosa's numba functions by trimming some noise and computing its features.

    Call it before other processes start. numba caches on disk what it compiles, without a lock, and
    processes that compile at the same time can crash. Concurrent calls take turns, where files can
    be locked.
    """
    with Path(__file__).open() as file:
        with suppress(portalocker.LockException):
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE)
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
        librosa.effects.trim(noise)
        summary_features(noise)


def feature_names() -> list[str]:
    """Return the names of the 1,133 features, in the order of `summary_features`."""
    return [*_frame_names(), *_envelope_names(), *_spectrum_names(), *_part_names()]


def _frame_names() -> list[str]:
    return [
        f"{family}_{statistic}" + (f"_{row:0{len(str(n_rows - 1))}d}" if n_rows > 1 else "")
        for family, n_rows in FAMILY_ROWS.items()
        for statistic in FRAME_STATISTICS
        for row in range(n_rows)
    ]


def _envelope_names() -> list[str]:
    return [
        *(f"power_above_{p}_{s}" for p in _percents(POWER_LEVELS) for s in RUN_STATISTICS),
        *("attack_log_time", "decay_log_time", "sign_changes_log_count", "sign_changes_share"),
    ]


def _spectrum_names() -> list[str]:
    names = [
        "centre",
        *(f"bins_above_{p}" for p in _percents(PEAK_LEVELS)),
        "peak_bin",
        *(f"low_bins_above_{p}" for p in _percents(LOW_LEVELS)),
        *(f"above_{p}_{s}" for p in _percents(PEAK_LEVELS) for s in RUN_STATISTICS),
        *FIT_TERMS,
        *("sum", "mean", "norm", "norm_per_bin"),
        *(f"peak_{term}" for term in FIT_TERMS),
        *(f"smoothed_{b:03d}" for b in range(0, SPECTRUM_BINS - SMOOTHING + 1, SMOOTHED_STEP)),
    ]
    return [f"spectrum_{name}" for name in names]


def _percents(levels: tuple[float, ...]) -> list[str]:
    return [f"{100 * level:.0f}" for level in levels]


def _part_names() -> list[str]:
    return [
        f"{signal}_{statistic}_{part}of{count}"
        for count in PART_COUNTS
        for signal in PART_SIGNALS
        for part in range(1, count + 1)
        for statistic in PART_STATISTICS
    ]


# Group 1: statistics over frames


def frame_features(wave: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the nine families of frame-wise features, with librosa's defaults.

    All but tonnetz and zero-crossing rate are functions of the magnitude (not power) STFT.

    Args:
        wave: (n,) float32 samples in -1..1 at 44.1 kHz, n >= 2048.

    Returns:
        An array (k, t) for each family of `FAMILY_ROWS`.
    """
    transform = stft(wave, n_fft=N_FFT, hop_length=HOP_LENGTH)
    magnitude = np.abs(transform)
    harmonic = harmonic_wave(transform, wave.size)
    del transform  # The largest array, 400 MB for ten minutes.
    centroid, bandwidth = centroid_and_bandwidth(magnitude)
    return {
        "mel": mel_filterbank(SAMPLE_RATE, N_FFT, FAMILY_ROWS["mel"]) @ magnitude,
        "mfcc": dct_basis() @ magnitude,
        "chroma": chroma(magnitude),
        "contrast": librosa.feature.spectral_contrast(S=magnitude, sr=SAMPLE_RATE),
        "rolloff": rolloff(magnitude),
        "centroid": centroid,
        "bandwidth": bandwidth,
        "tonnetz": tonnetz(harmonic),
        "zero_crossing_rate": zero_crossing_rate(wave),
    }


@lru_cache
def dct_basis() -> np.ndarray:
    """Return the first cosines of the "MFCC", (40, f).

    They are applied directly to the 1,025 magnitudes, without mel bands or logarithm.
    """
    basis = scipy.fft.dct(np.eye(1 + N_FFT // 2), axis=0, norm="ortho")
    return basis[: FAMILY_ROWS["mfcc"]].astype(np.float32)


def chroma(magnitude: np.ndarray) -> np.ndarray:
    """Sum magnitudes (f, t) by pitch class, as `librosa.feature.chroma_stft` does.

    Returns:
        (12, t), C first; the maximum of each frame is 1. The frames are contiguous in memory, as
        in librosa. NumPy then sums a row element by element, and in rows that hardly vary the
        rounding of these sums affects the published skewness.
    """
    bank = chroma_filterbank(estimate_tuning(magnitude, FAMILY_ROWS["chroma"]))
    return librosa.util.normalize(magnitude.T @ bank.T, norm=np.inf, axis=1).T


@lru_cache(maxsize=128)
def chroma_filterbank(tuning: float) -> np.ndarray:
    """Return the weights of the pitch classes, (12, f), for a tuning in fractions of a semitone."""
    return librosa.filters.chroma(sr=SAMPLE_RATE, n_fft=N_FFT, tuning=tuning)


def rolloff(magnitude: np.ndarray) -> np.ndarray:
    """Compute the frequency, (1, t) in Hz, up to which a frame (f, t) has 85 % of its magnitude."""
    below = np.cumsum(magnitude, axis=0)
    bins = np.count_nonzero(below < ROLLOFF_FRACTION * below[-1], axis=0)
    return librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT)[None, bins]


def centroid_and_bandwidth(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of the frequency, weighted by the magnitude (f, t).

    Returns:
        (1, t) each, in Hz; 0 for a silent frame.
    """
    frequencies = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT)
    total, first, second = np.vander(frequencies, 3, increasing=True).T @ magnitude.astype(float)
    total[total == 0] = 1
    centroid = first / total
    variance = np.maximum(second / total - centroid**2, 0)
    return centroid[None], np.sqrt(variance)[None]


def zero_crossing_rate(wave: np.ndarray) -> np.ndarray:
    """Compute the fraction of samples, (1, t), whose sign differs from that of the previous sample.

    The wave (n,) is extended at both ends by its first and last sample.
    """
    crossings = librosa.zero_crossings(np.pad(wave, N_FFT // 2, mode="edge"), pad=False)
    counts = np.cumsum(crossings)
    # The first sample of a frame has no previous one.
    return (counts[N_FFT - 1 :: HOP_LENGTH] - counts[: -N_FFT + 1 : HOP_LENGTH])[None] / N_FFT


def frame_statistics(rows: np.ndarray) -> np.ndarray:
    """Summarise each row of a family (k, t) over its frames, in the rows' dtype.

    Returns:
        (5 k,): mean of all rows, then standard deviation, skewness (biased, Fisher-Pearson; 0 for
        a constant row), maximum and minimum.
    """
    mean, largest, smallest = rows.mean(1), rows.max(1), rows.min(1)
    centred = rows - mean[:, None]
    squares = centred**2
    variance = squares.mean(1)
    # The variance of very faint rows underflows in float32.
    varied = (largest > smallest) & (variance > 0)
    skewness = (squares * centred).mean(1) / np.where(varied, variance, 1).astype(float) ** 1.5
    return np.concatenate([mean, np.sqrt(variance), skewness * varied, largest, smallest])


# Group 2: the envelope of the power


def envelope_features(wave: np.ndarray) -> np.ndarray:
    """Compute features of a wave's loudness over time, its attack and decay, and sign changes.

    Args:
        wave: (n,) float32 samples in -1..1, n >= 2000.

    Returns:
        (12,) run statistics of the power above 5 % and 25 % of its maximum, log1p of attack and
        decay time in samples, log1p of the number of sign changes, and their fraction of n.
    """
    power = running_mean(wave**2, POWER_WINDOW)
    changes = sign_changes(wave)
    return np.array(
        [
            *runs_above(power, POWER_LEVELS),
            np.log1p(attack_time(power)),
            np.log1p(decay_time(power, wave.size)),
            np.log1p(changes),
            changes / wave.size,
        ]
    )


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Average each full window of `width` consecutive values.

    The cumulative sum has the dtype of `values`. For float32, as in the published solution, its
    rounding decides how often a power near a level crosses it.

    Returns:
        (n - width + 1,) in the dtype and unit of the n >= width values.
    """
    sums = np.cumsum(np.pad(values, (1, 0)), dtype=values.dtype)
    return (sums[width:] - sums[:-width]) / width


def runs_above(values: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Compute the `run_statistics`, (4 x levels,), of the values (n,) above each level.

    The values are not negative, and the levels are fractions of their maximum.
    """
    return np.concatenate([run_statistics(values > level * values.max()) for level in levels])


def run_statistics(mask: np.ndarray) -> np.ndarray:
    """Summarise the lengths of the runs of consecutive true values in a mask (n,).

    Returns:
        (4,) log1p of mean, standard deviation and maximum length, and the number of runs; zeros
        if there is no run.
    """
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    if lengths.size == 0:
        return np.zeros(len(RUN_STATISTICS))
    return np.array([*np.log1p([lengths.mean(), lengths.std(), lengths.max()]), lengths.size])


def attack_time(power: np.ndarray) -> int:
    """Return the index of the first sample at which the power (n,) reaches 99 % of its maximum."""
    return int(np.argmax(power >= ATTACK_LEVEL * power.max()))


def decay_time(power: np.ndarray, n_samples: int) -> int:
    """Return the first index after the attack at which the power is under 20 % of its maximum.

    Where the power never falls that low after the attack, return n_samples, the length of the wave
    itself. The power has fewer values: one for each full window.
    """
    low = np.flatnonzero(power < DECAY_LEVEL * power.max())
    later = low[low > attack_time(power)]
    return int(later[0]) if later.size else n_samples


def sign_changes(wave: np.ndarray) -> int:
    """Count the neighbours in a wave (n,) with opposite signs or with at least one zero."""
    # Signs first: the product of two faint samples could underflow.
    signs = np.sign(wave)
    return int(np.count_nonzero(signs[1:] * signs[:-1] <= 0))


# Group 3: the mean segment spectrum


def segment_spectrum(wave: np.ndarray) -> np.ndarray:
    """Average the magnitude spectrum over segments of 2,000 samples, from sample 100 on.

    As in the published solution, a segment that ends with the wave's last sample is left out.

    Args:
        wave: (n,) samples in -1..1, n >= 2101; samples after the last segment are ignored.

    Returns:
        (b,) float64, log1p of the mean magnitude of the first 1,000 bins.
    """
    count = (wave.size - SEGMENT_START - 1) // SEGMENT_LENGTH
    used = wave[SEGMENT_START : SEGMENT_START + count * SEGMENT_LENGTH].astype(np.float64)
    magnitude = np.abs(np.fft.rfft(used.reshape(count, SEGMENT_LENGTH), axis=1))
    return np.log1p(magnitude.mean(0)[:SPECTRUM_BINS])


def peak_features(spectrum: np.ndarray) -> np.ndarray:
    """Compute features of the peaks and the shape of a spectrum (b,) of log1p magnitudes.

    Returns:
        (39,) centre, widths, position of the maximum, low bins, run statistics at five levels,
        quadratic fit, sums, quadratic fit of the peak; positions and widths in bins.
    """
    peak, norm = spectrum.max(), np.linalg.norm(spectrum)
    return np.array(
        [
            centre_of_mass(spectrum**2),
            *(np.count_nonzero(spectrum > level * peak) for level in PEAK_LEVELS),
            spectrum.argmax(),
            *(np.count_nonzero(spectrum[:LOW_BINS] > level * peak) for level in LOW_LEVELS),
            *runs_above(spectrum, PEAK_LEVELS),
            *quadratic_fit(np.arange(spectrum.size), spectrum),
            *(spectrum.sum(), spectrum.mean(), norm, norm / spectrum.size),
            *peak_fit(spectrum),
        ]
    )


def centre_of_mass(weights: np.ndarray) -> float:
    """Compute the mean index under weights (b,) that are not negative; 0 if all are zero."""
    total = weights.sum()
    return float(weights @ np.arange(weights.size) / total) if total > 0 else 0.0


def quadratic_fit(positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Fit values (b,) by intercept + slope * position + curvature * position ** 2, least squares.

    There are at least three different positions (b,), in bins.

    Returns:
        (3,) slope, curvature, intercept.
    """
    curvature, slope, intercept = np.polyfit(positions, values, deg=2)
    return np.array([slope, curvature, intercept])


def peak_fit(spectrum: np.ndarray) -> np.ndarray:
    """Fit a quadratic to the peak of a spectrum (b,): the bins around it above 10 % of it.

    The first bin on the left that is not above 10 % is included, the one on the right is not. The
    peak starts at bin 0 where all bins on its left are above 10 %.

    Returns:
        (3,) slope, curvature and intercept over the bin number; zeros where all bins on the right
        are above 10 %, and for fewer than three bins.
    """
    peak = spectrum.argmax()
    outside = np.flatnonzero(spectrum <= PEAK_LEVELS[0] * spectrum[peak])
    start = outside[outside <= peak].max(initial=0)
    ends = outside[outside >= peak]
    if ends.size == 0 or ends[0] - start < 3:
        return np.zeros(len(FIT_TERMS))
    return quadratic_fit(np.arange(start, ends[0]), spectrum[start : ends[0]])


# Group 4: statistics of parts


def part_features(wave: np.ndarray) -> np.ndarray:
    """Summarise a wave (n,), n >= 4, its absolute value and its difference in 1, 2 and 3 parts.

    Returns:
        (72,) `part_statistics` of each signal for one part, then for two, then for three.
    """
    wave = wave.astype(np.float64)
    signals = (wave, np.abs(wave), np.diff(wave))
    return np.concatenate([part_statistics(s, count) for count in PART_COUNTS for s in signals])


def part_statistics(signal: np.ndarray, count: int) -> np.ndarray:
    """Summarise each of `count` equal consecutive parts of a signal (n,), n >= count.

    The last n % count values are ignored.

    Returns:
        (4 x count,) mean, standard deviation, minimum and maximum, part by part.
    """
    length = signal.size // count
    parts = signal[: count * length].reshape(count, length)
    mean = parts.mean(1)
    variance = np.einsum("ij,ij->i", parts, parts) / length - mean**2
    std = np.sqrt(np.maximum(variance, 0))
    return np.column_stack([mean, std, parts.min(1), parts.max(1)]).ravel()
