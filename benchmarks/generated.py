"""Generation of a set of clips as large as the challenge's, from the names in its tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats
import soundfile

SHORTEST, LONGEST = 0.3, 30.0
N_DISTINCT = 200


def generate(tables: dict[str, list[str]], raw_dir: Path, mean_seconds: dict[str, float]) -> None:
    """Write a CSV and a file for every row of the tables of each split, in `raw_dir`.

    The files are links to a few hundred clips of noise, so that no step gets easy input.

    Args:
        tables: CSVs with a column `fname`, by split (train or test).
        raw_dir: folder to create, with 300 MB free.
        mean_seconds: mean length of the clips, by split.
    """
    rng = np.random.default_rng(0)
    for split, paths in tables.items():
        folder = raw_dir / f"audio_{split}"
        folder.mkdir(parents=True)
        names = pd.concat([pd.read_csv(path)["fname"] for path in paths])
        sources = _write_noise(raw_dir / f"noise_{split}", mean_seconds[split], rng)
        for index, name in enumerate(names):
            (folder / name).hardlink_to(sources[index % N_DISTINCT])
        table = pd.DataFrame({"fname": names, "label": "noise"})
        table.to_csv(raw_dir / f"all_{split}.csv", index=False)


def lengths_of(mean_seconds: float) -> np.ndarray:
    """Return log-normal lengths of 0.3 to 30 s with this mean, (200,) in seconds."""
    normal = scipy.stats.norm.ppf((np.arange(N_DISTINCT) + 0.5) / N_DISTINCT)

    def lengths(location: float) -> np.ndarray:
        return np.clip(np.exp(location + normal), SHORTEST, LONGEST)

    return lengths(scipy.optimize.brentq(lambda x: lengths(x).mean() - mean_seconds, -2, 4))


def _write_noise(folder: Path, mean_seconds: float, rng: np.random.Generator) -> list[Path]:
    folder.mkdir()
    paths = []
    for index, seconds in enumerate(rng.permutation(lengths_of(mean_seconds))):
        wave = rng.normal(0, 0.1, round(seconds * 44_100)).astype(np.float32)
        paths.append(folder / f"{index}.wav")
        soundfile.write(paths[-1], wave, 44_100, subtype="PCM_16")
    return paths
