"""Cost of features, compared with the plain calls of librosa, pandas and SciPy that define them.

    python benchmarks/features.py families CLIP…     # the same clips, alternating, on one core
    python benchmarks/features.py processes CLIP…    # two processes against one
    python benchmarks/features.py full TRAIN.csv TEST.csv     # a set of the challenge's size
    python benchmarks/features.py long               # memory of the longest clip

Every plain function is the simplest implementation of a definition in `audio/`, without regard
to speed. `features.md` has the results.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

# Before NumPy is loaded: one core is what is measured.
os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1"))

import librosa
import numpy as np
import pandas as pd
import scipy.stats
from joblib.externals.loky import get_reusable_executor

from fsat_kedro.audio import harmonic
from fsat_kedro.audio import summary_features as summary
from fsat_kedro.audio.decoding import SAMPLE_RATE, load_trimmed
from fsat_kedro.audio.log_mel import log_mel, mel_filterbank
from fsat_kedro.audio.stft import stft
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.parameters import Decoding, LogMel, Pca, TableColumns, Trim
from fsat_kedro.pipelines.features import nodes
from fsat_kedro.pipelines.preprocessing.nodes import read_metadata, trim_clips
from generated import generate

LOG_MEL = {"sample_rate": 22_050, "n_fft": 1764, "hop_length": 220, "n_mels": 64}


# The plain calls, family by family


def plain_log_mel(wave: np.ndarray) -> np.ndarray:
    wave = librosa.resample(wave, orig_sr=SAMPLE_RATE, target_sr=22_050)
    mel = librosa.feature.melspectrogram(y=wave, sr=22_050, n_fft=1764, hop_length=220, n_mels=64)
    return librosa.power_to_db(mel)


def plain_stft(wave: np.ndarray) -> np.ndarray:
    return np.abs(librosa.stft(wave))


def plain_mel(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.melspectrogram(S=magnitude, sr=SAMPLE_RATE)


def plain_mfcc(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.mfcc(S=magnitude, sr=SAMPLE_RATE, n_mfcc=40)


def plain_chroma(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.chroma_stft(S=magnitude, sr=SAMPLE_RATE)


def plain_contrast(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_contrast(S=magnitude, sr=SAMPLE_RATE)


def plain_rolloff(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_rolloff(S=magnitude, sr=SAMPLE_RATE)


def plain_centroid(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_centroid(S=magnitude, sr=SAMPLE_RATE)


def plain_bandwidth(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_bandwidth(S=magnitude, sr=SAMPLE_RATE)


def plain_harmonic(wave: np.ndarray) -> np.ndarray:
    return librosa.effects.harmonic(wave)


def plain_tonnetz(harmonic: np.ndarray) -> np.ndarray:
    return librosa.feature.tonnetz(y=harmonic, sr=SAMPLE_RATE)


def plain_zero_crossing_rate(wave: np.ndarray) -> np.ndarray:
    return librosa.feature.zero_crossing_rate(wave)


def plain_statistics(rows: list[np.ndarray]) -> np.ndarray:
    functions = (np.mean, np.std, scipy.stats.skew, np.max, np.min)
    return np.concatenate([function(r, axis=1) for r in rows for function in functions])


def plain_envelope(wave: np.ndarray) -> np.ndarray:
    power = pd.Series(wave**2).rolling(2000).mean().dropna().reset_index(drop=True)
    peak = power.max()
    runs = [value for level in (0.05, 0.25) for value in plain_runs(power > level * peak)]
    attack = power[power >= 0.99 * peak].index[0]
    low = power[power < 0.2 * peak].index
    later = low[low > attack]
    decay = later[0] if len(later) else low[-1] if len(low) else len(power)
    changes = (wave[1:] * wave[:-1] <= 0).sum()
    logs = np.log1p([attack, decay, changes])
    return np.array([*runs, *logs, changes / len(wave)])


def plain_runs(mask: pd.Series) -> list[float]:
    lengths = mask.groupby((mask != mask.shift()).cumsum()).sum()
    lengths = lengths[lengths > 0]
    if len(lengths) == 0:
        return [0, 0, 0, 0]
    return [*np.log1p([lengths.mean(), lengths.std(ddof=0), lengths.max()]), len(lengths)]


def plain_segments(wave: np.ndarray) -> np.ndarray:
    segments = [wave[i : i + 2000] for i in range(100, len(wave) - 2000 + 1, 2000)]
    return np.log1p(np.mean([np.abs(np.fft.fft(s))[:1000] for s in segments], axis=0))


def plain_peaks(spectrum: np.ndarray) -> np.ndarray:
    bins, peak, norm = np.arange(1000), spectrum.max(), np.linalg.norm(spectrum)
    levels = (0.1, 0.2, 0.5, 0.9, 0.99)
    curvature, slope, intercept = np.polyfit(bins, spectrum, 2)
    centre, left, right = spectrum.argmax(), spectrum.argmax(), spectrum.argmax()
    while left > 0 and spectrum[left] > 0.1 * peak:
        left -= 1
    while right < 1000 and spectrum[right] > 0.1 * peak:
        right += 1
    around = np.polyfit(bins[left:right], spectrum[left:right], 2)[[1, 0, 2]]
    return np.array(
        [
            (spectrum**2 * bins).sum() / (spectrum**2).sum(),
            *((spectrum > level * peak).sum() for level in levels),
            centre,
            *((spectrum[:50] > level * peak).sum() for level in (0.5, 0.9)),
            *(v for level in levels for v in plain_runs(pd.Series(spectrum > level * peak))),
            *(slope, curvature, intercept),
            *(spectrum.sum(), spectrum.mean(), norm, norm / 1000),
            *(around if right - left >= 3 else (0, 0, 0)),
            *pd.Series(spectrum).rolling(20).mean().dropna()[::40],
        ]
    )


def plain_parts(wave: np.ndarray) -> np.ndarray:
    values = []
    for count in (1, 2, 3):
        for signal in (wave.astype(float), np.abs(wave).astype(float), np.diff(wave.astype(float))):
            length = len(signal) // count
            for start in range(0, count * length, length):
                part = signal[start : start + length]
                values += [part.mean(), part.std(), part.min(), part.max()]
    return np.array(values)


# Our functions, family by family, alternating with the plain calls


def transform_of(wave: np.ndarray) -> np.ndarray:
    return stft(wave, n_fft=harmonic.N_FFT, hop_length=harmonic.HOP_LENGTH)


def both_stfts(wave: np.ndarray) -> None:
    """Compute the transforms that log-mels and summary features need."""
    transform_of(wave)
    wave = librosa.resample(wave, orig_sr=SAMPLE_RATE, target_sr=LOG_MEL["sample_rate"])
    stft(wave, n_fft=LOG_MEL["n_fft"], hop_length=LOG_MEL["hop_length"])


def plain_centroid_and_bandwidth(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return plain_centroid(magnitude), plain_bandwidth(magnitude)


def our_mel(magnitude: np.ndarray) -> np.ndarray:
    return mel_filterbank(SAMPLE_RATE, harmonic.N_FFT, 128) @ magnitude


def our_peaks(spectrum: np.ndarray) -> None:
    summary.peak_features(spectrum)
    summary.running_mean(spectrum, summary.SMOOTHING)


def inputs_of(wave: np.ndarray) -> dict:
    """Return the inputs of the families."""
    transform = transform_of(wave)
    return {
        "wave": (wave,),
        "transform": (transform, wave.size),
        "magnitude": (np.abs(transform),),
        "harmonic": (harmonic.harmonic_wave(transform, wave.size),),
        "rows": (list(summary.frame_features(wave).values()),),
        "spectrum": (summary.segment_spectrum(wave),),
    }


# Name, plain function and its input, our function and its input.
FAMILIES: dict[str, tuple[Callable, str, Callable, str]] = {
    "log-mel": (plain_log_mel, "wave", lambda w: log_mel(w, **LOG_MEL), "wave"),
    "STFT": (plain_stft, "wave", lambda w: np.abs(transform_of(w)), "wave"),
    "mel": (plain_mel, "magnitude", our_mel, "magnitude"),
    "mfcc": (plain_mfcc, "magnitude", lambda m: summary.dct_basis() @ m, "magnitude"),
    "chroma": (plain_chroma, "magnitude", summary.chroma, "magnitude"),
    "contrast": (plain_contrast, "magnitude", plain_contrast, "magnitude"),
    "rolloff": (plain_rolloff, "magnitude", summary.rolloff, "magnitude"),
    "centroid, bandwidth": (
        *(plain_centroid_and_bandwidth, "magnitude"),
        *(summary.centroid_and_bandwidth, "magnitude"),
    ),
    "harmonic part": (plain_harmonic, "wave", harmonic.harmonic_wave, "transform"),
    "tonnetz": (plain_tonnetz, "harmonic", harmonic.tonnetz, "harmonic"),
    "zero-crossing rate": (
        *(plain_zero_crossing_rate, "wave"),
        *(summary.zero_crossing_rate, "wave"),
    ),
    "statistics of frames": (
        *(plain_statistics, "rows"),
        *(lambda rows: [summary.frame_statistics(r) for r in rows], "rows"),
    ),
    "envelope": (plain_envelope, "wave", summary.envelope_features, "wave"),
    "segment spectrum": (plain_segments, "wave", summary.segment_spectrum, "wave"),
    "peaks": (plain_peaks, "spectrum", our_peaks, "spectrum"),
    "parts": (plain_parts, "wave", summary.part_features, "wave"),
}


def compare_families(paths: list[str], repeats: int) -> None:
    """Print the shortest time of each family, plain and ours, and of all families together."""
    waves = [decode(path) for path in paths]
    inputs = [inputs_of(wave) for wave in waves]
    best: dict[str, list[float]] = {name: [np.inf, np.inf] for name in FAMILIES}
    total, unavoidable = [np.inf, np.inf], [np.inf, np.inf]
    for _ in range(repeats):
        for name, (plain, plain_input, ours, our_input) in FAMILIES.items():
            best[name][0] = min(best[name][0], seconds(plain, [i[plain_input] for i in inputs]))
            best[name][1] = min(best[name][1], seconds(ours, [i[our_input] for i in inputs]))
        arguments = [(wave,) for wave in waves]
        for index, way in enumerate([plain_features, our_features]):
            total[index] = min(total[index], seconds(way, arguments))
        unavoidable[0] = min(unavoidable[0], seconds(decode, [(path,) for path in paths]))
        unavoidable[1] = min(unavoidable[1], seconds(both_stfts, arguments))
    hours = sum(wave.size for wave in waves) / SAMPLE_RATE / 3600
    print(f"{len(paths)} clips, {3600 * hours:.0f} s of sound; shortest of {repeats} rounds")
    print(f"{'':22}{'plain s':>9}{'ours s':>9}{'ratio':>7}{'h per core-minute':>19}")
    for name, (plain, ours) in [*best.items(), ("all together", total)]:
        print(f"{name:22}{plain:9.3f}{ours:9.3f}{plain / ours:7.1f}{hours / ours * 60:19.2f}")
    for name, time_of in zip(["decoding", "both STFTs"], unavoidable, strict=True):
        fraction = time_of / (total[1] + unavoidable[0])
        print(f"{name:22}{'':9}{time_of:9.3f}{fraction:7.0%} of decoding and all features")


def seconds(function: Callable, arguments: list[tuple]) -> float:
    """Return the seconds that a function takes for all clips."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa's, of windows longer than the wave.
        for each in arguments:
            function(*each)
    return time.perf_counter() - began


def decode(path: str) -> np.ndarray:
    with Path(path).open("rb") as file:
        return load_trimmed(file, top_db=60, max_seconds=600).samples


def plain_features(wave: np.ndarray) -> np.ndarray:
    plain_log_mel(wave)
    magnitude = plain_stft(wave)
    rows = [
        plain_mel(magnitude),
        plain_mfcc(magnitude),
        plain_chroma(magnitude),
        plain_contrast(magnitude),
        plain_rolloff(magnitude),
        plain_centroid(magnitude),
        plain_bandwidth(magnitude),
        plain_tonnetz(plain_harmonic(wave)),
        plain_zero_crossing_rate(wave),
    ]
    spectrum = plain_segments(wave)
    groups = (plain_statistics(rows), plain_envelope(wave), plain_peaks(spectrum))
    return np.concatenate([*groups, plain_parts(wave)])


def our_features(wave: np.ndarray) -> np.ndarray:
    log_mel(wave, **LOG_MEL)
    return summary.summary_features(wave)


# The nodes


def compute(sound: RaggedArray, clips: pd.DataFrame, n_jobs: int, folder: str) -> tuple:
    """Compute log-mels and summary features with the pipeline's nodes, and save the log-mels."""
    mels = nodes.compute_log_mels(sound, clips, LogMel(**LOG_MEL), n_jobs, folder)
    RaggedDataset(filepath=f"{folder}/mels").save(mels)
    return mels, nodes.compute_summary_features(sound, clips, n_jobs)


def compare_processes(paths: list[str], repeats: int, copies: int) -> None:
    """Print the seconds of one and two processes, alternating, and their ratio."""
    waves = [decode(path) for path in paths] * copies
    clips = pd.DataFrame({"fname": [str(index) for index in range(len(waves))]})
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = RaggedDataset(filepath=f"{folder}/audio")
        offsets = np.cumsum([0, *map(len, waves)])
        dataset.save(RaggedArray(np.concatenate(waves), offsets))
        hours = offsets[-1] / SAMPLE_RATE / 3600
        print(f"{len(waves)} clips, {hours:.2f} h of sound")
        for repeat in range(repeats + 1):
            times = []
            for n_jobs in (1, 2):
                began = time.perf_counter()
                compute(dataset.load(), clips, n_jobs, folder)
                times.append(time.perf_counter() - began)
            remark = "" if repeat else " (starts the processes; not counted)"
            print(
                "1 process {:.1f} s, 2 processes {:.1f} s, ratio {:.2f}{}".format(
                    *times, times[0] / times[1], remark
                ),
                flush=True,
            )
            ratios += [times[0] / times[1]] * bool(repeat)
    print(f"median ratio {statistics.median(ratios):.2f}")


def compute_full_set(tables: list[str], hours: float, part: int, work_dir: str | None) -> None:
    """Preprocess a generated set and compute its features with two processes."""
    names = dict(zip(["train", "test"], ([table] for table in tables), strict=True))
    n_clips = sum(len(pd.read_csv(table)) for table in tables)
    mean_seconds = dict.fromkeys(names, hours * 3600 / n_clips)
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        raw_dir = Path(folder, "raw")
        generate(names, raw_dir, mean_seconds)
        for split in names:
            table = pd.read_csv(raw_dir / f"all_{split}.csv")
            name = {"train": "train.csv", "test": "test_post_competition.csv"}[split]
            table[: len(table) // part].to_csv(raw_dir / name, index=False)
        began = time.perf_counter()
        summaries = {split: compute_split(str(raw_dir), split, folder) for split in names}
        print(f"both splits: {time.perf_counter() - began:.0f} s")
        began = time.perf_counter()
        nodes.fit_summary_projector(summaries["train"], Pca(n_components=350))
        print(f"PCA of {len(summaries['train'])} clips: {time.perf_counter() - began:.1f} s")
    print_peaks()


def compute_split(raw_dir: str, split: str, folder: str) -> pd.DataFrame:
    """Preprocess a split, compute its features and return its summary features."""
    began = time.perf_counter()
    metadata, _ = read_metadata(
        raw_dir, "fsdkaggle2018", TableColumns(file=None, label=None), split=split
    )
    trimmed, _ = trim_clips(metadata, Decoding(max_seconds=600), Trim(top_db=60), 2, folder)
    dataset = RaggedDataset(filepath=f"{folder}/{split}_audio")
    dataset.save(trimmed)
    between = time.perf_counter()
    sound = dataset.load()
    _, rows = compute(sound, metadata, 2, folder)
    hours = sound.offsets[-1] / SAMPLE_RATE / 3600
    print(
        f"{split}: {len(sound)} clips, {hours:.2f} h of sound; preprocessing "
        f"{between - began:.0f} s, features {time.perf_counter() - between:.0f} s",
        flush=True,
    )
    return rows


def print_peaks() -> None:
    """Print the peak memory of this process and of its largest worker."""
    get_reusable_executor().shutdown(wait=True)
    own, workers = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"peak {own:.0f} MiB, largest worker {workers:.0f} MiB")


def compute_longest(minutes: float) -> None:
    """Compute the features of one long clip, and print its time and memory."""
    wave = np.random.default_rng(0).normal(0, 0.1, round(minutes * 60 * SAMPLE_RATE))
    began = time.perf_counter()
    our_features(wave.astype(np.float32))
    print(f"{minutes:g} minutes of noise: {time.perf_counter() - began:.1f} s")
    print_peaks()


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["families", "processes", "full", "long"])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=int, default=6, help="of each clip, for `processes`")
    parser.add_argument("--hours", type=float, default=18, help="of sound in all, for `full`")
    parser.add_argument("--part", type=int, default=1, help="`full` uses one of so many clips")
    parser.add_argument("--work-dir", help="folder with 30 GB free, for `full`")
    parser.add_argument("--minutes", type=float, default=10, help="of the clip of `long`")
    options = parser.parse_intermixed_args()
    if options.what == "families":
        compare_families(options.paths, options.repeats)
    elif options.what == "processes":
        compare_processes(options.paths, options.repeats, options.copies)
    elif options.what == "full":
        compute_full_set(options.paths, options.hours, options.part, options.work_dir)
    else:
        compute_longest(options.minutes)


if __name__ == "__main__":
    main()
