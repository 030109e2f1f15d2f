"""Dataset for what is in an object store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.store import Store

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol


class StoredDataset(AbstractDataset[Any, Any]):
    """Another dataset, of a file or a folder of this machine that is a copy of one in a store.

    Nobody writes it into the catalog: where `data_dir` is an address, the catalog is made of them.

    Example:
        In Python::

            dataset = StoredDataset(
                dataset={
                    "type": "fsat_kedro.datasets.npy_dataset.NpyDataset",
                    "filepath": "/cache/s3/bucket/run/04_feature/train_components.npy",
                },
                address="s3://bucket/run",
                folder="/cache/s3/bucket/run",
            )
            dataset.save(np.zeros((2, 350), np.float32))
            components = dataset.load()
    """

    def __init__(
        self,
        *,
        dataset: dict[str, Any],
        address: str,
        folder: str,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """A dataset that is kept at an address.

        Args:
            dataset: the other one as it stands in a catalog, its `filepath` below `folder`.
            address: of a store.
            folder: of copies of what is there.
            metadata: kept for plugins.
        """
        self._dataset = AbstractDataset.from_config("dataset", dataset)
        self._filepath = Path(self._dataset._filepath)
        self._parts = getattr(self._dataset, "PARTS", ())
        self.store = Store(address, Path(folder))
        self.metadata = metadata

    def load(self) -> Any:
        """What the other dataset loads, of a fresh copy."""
        self.fetch()
        data = self._dataset.load()
        if isinstance(data, RaggedArray):
            return data.kept_at(self.store.address_of(self._filepath, *self._parts[:1]))
        return data

    def save(self, data: Any) -> None:
        """Save by the other dataset, then send it to the store."""
        self.store.forget(self._filepath)
        self._dataset.save(data)
        self.store.send(self._filepath, self._parts)

    def fetch(self) -> Path:
        """The path of a fresh copy, beside which there is all else that loading it needs.

        Raises:
            InputError: it is not in the store.
        """
        if not self.store.fetch(self._filepath, self._parts):
            raise InputError(
                f"there is no {self.address}: make it first (kedro run), or set another data_dir"
            )
        for path in getattr(self._dataset, "beside", list)():
            self.store.fetch(path)
        return self._filepath

    def saved_at(self) -> float | None:
        """When it was saved, in seconds since 1970; None if it was not."""
        return self.store.saved_at(self._filepath, self._parts)

    def remove(self) -> None:
        """Remove it from the store, and the copy."""
        self.store.remove(self._filepath, self._parts)

    @property
    def address(self) -> str:
        """Where it is in the store."""
        return self.store.address_of(self._filepath)

    def _exists(self) -> bool:
        return self.store.has(self._filepath, self._parts)

    def _describe(self) -> dict[str, Any]:
        return {"address": self.address}


def in_store(catalog: dict[str, Any], store: Store) -> dict[str, Any]:
    """A configuration of a catalog whose files below the store's address are kept there."""

    def kept(entry: Any) -> Any:
        path = entry.get("filepath", "") if isinstance(entry, dict) else ""
        if not path.startswith(f"{store.address}/"):
            return entry
        copy = store.folder / path.removeprefix(store.address).strip("/")
        return {
            "type": f"{StoredDataset.__module__}.{StoredDataset.__name__}",
            "dataset": {**entry, "filepath": copy.as_posix()},
            "address": store.address,
            "folder": store.folder.as_posix(),
            "metadata": entry.get("metadata"),
        }

    return {name: kept(entry) for name, entry in catalog.items()}


def tagger_at(store: Store) -> StoredDataset:
    """The trained ensemble in a store."""
    path = store.folder / "06_models" / "tagger.json"
    dataset = {
        "type": "fsat_kedro.datasets.tagger_dataset.TaggerDataset",
        "filepath": path.as_posix(),
    }
    return StoredDataset(dataset=dataset, address=store.address, folder=str(store.folder))


def store_of(catalog: CatalogProtocol, names: Iterable[str]) -> Store | None:
    """The store that these datasets are kept in; None for none."""
    datasets = (catalog[name] for name in names if name in catalog)
    return next((x.store for x in datasets if isinstance(x, StoredDataset)), None)
