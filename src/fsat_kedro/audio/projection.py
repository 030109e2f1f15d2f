"""The projection of summary features: standardisation and PCA, bounded to what training had.

Axes: n clips, d features, p components.
"""

from dataclasses import asdict, dataclass, fields
from typing import IO

import numpy as np

from fsat_kedro.errors import InputError

_NO_VARIANCE = 1e-12
"""Fraction of the variance that is nothing but rounding."""

_UNLIKE_FRACTION = 0.05
"""Of the components of a clip. In ESC-10 and 250 clips of FSDKaggle2018, 1 to 2 % of held-out clips
reach it, and pure tones and white noise do. Up to 14 % have a single component so far beyond."""


@dataclass(frozen=True, eq=False)
class Projector:
    """Standardisation and principal axes, as arrays of float64.

    Attributes:
        mean: (d,) of each feature.
        scale: (d,) standard deviation of each feature; 1 for a constant one.
        axes: (p, d) principal axes of the standardised features.
        explained_variance_ratio: (p,) fraction of the variance that each component explains.
        minimum: (p,) smallest component of the clips that it was fitted to.
        maximum: (p,) largest component of them.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    explained_variance_ratio: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    def __post_init__(self) -> None:
        if self.axes.ndim != 2:
            raise ValueError(f"axes has shape {self.axes.shape}")
        n_components, n_features = self.axes.shape
        shapes = {"mean": (n_features,), "scale": (n_features,), "axes": self.axes.shape}
        for field in fields(self):
            array = getattr(self, field.name)
            if array.shape != shapes.get(field.name, (n_components,)):
                raise ValueError(f"{field.name} has shape {array.shape}")
            if array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"{field.name} has other values than finite float64")
        if not (self.scale > 0).all() or not (self.minimum <= self.maximum).all():
            raise ValueError("a scale is not positive, or a minimum above its maximum")

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Compute the components (n, p) of features (n, d), within `minimum` and `maximum`.

        A network that meets a component outside the range it was trained on is certain of
        anything. The clips that the projector was fitted to lie within: they stay as they are.
        """
        return np.clip(self.unbounded(features), self.minimum, self.maximum)

    def unbounded(self, features: np.ndarray) -> np.ndarray:
        """Compute the components (n, p) of features (n, d), wherever they lie."""
        return (features - self.mean) / self.scale @ self.axes.T

    def find_unlike(self, features: np.ndarray) -> np.ndarray:
        """Return which clips (n,) are unlike every clip that the projector was fitted to.

        Of these, one component in twenty is beyond its range by more than the width of that range.
        Single components of real clips are too. Components of no variance, which copies of a clip
        cause, do not count.
        """
        components, width = self.unbounded(features), self.maximum - self.minimum
        beyond = np.maximum(components - self.maximum, self.minimum - components) > width
        counted = self.explained_variance_ratio > _NO_VARIANCE
        return beyond[:, counted].sum(axis=1) >= max(1, _UNLIKE_FRACTION * counted.sum())

    def save(self, file: IO[bytes]) -> None:
        """Write the arrays in NumPy's format `.npz`."""
        np.savez(file, **asdict(self))


def load_projector(file: IO[bytes]) -> Projector:
    """Read a projector from an open `.npz` file, without unpickling.

    Raises:
        InputError: the content is damaged, or that of another file.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Projector(**{field.name: arrays[field.name] for field in fields(Projector)})
    except Exception as error:  # NumPy and zipfile raise many kinds for damaged content.
        raise InputError(f"not a projector: {error}") from error


def fit_projector(features: np.ndarray, n_components: int) -> Projector:
    """Fit standardisation and PCA to summary features.

    The solver is the full one. By default scikit-learn would choose its randomised solver for 350
    of 1,133 components, and the later components would be inexact.

    Args:
        features: (n, d) float64 summary features of the training clips, n >= 2.
        n_components: Number of components; n - 1 or d if that is fewer.

    Raises:
        InputError: If there are fewer than two clips.
    """
    # Takes a second, and what tags does not need it.
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_clips, n_features = features.shape
    if n_clips < 2:
        raise InputError(f"PCA needs the features of at least 2 clips, got {n_clips}")
    n_kept = min(n_components, n_clips - 1, n_features)
    scaler, pca = make_pipeline(StandardScaler(), PCA(n_kept, svd_solver="full")).fit(features)
    # The mean of standardised features is 0, so that of the PCA is not needed.
    components = (features - scaler.mean_) / scaler.scale_ @ pca.components_.T
    return Projector(
        mean=scaler.mean_,
        scale=scaler.scale_,
        axes=pca.components_,
        explained_variance_ratio=np.nan_to_num(pca.explained_variance_ratio_),  # Copies have none.
        minimum=components.min(axis=0),
        maximum=components.max(axis=0),
    )
