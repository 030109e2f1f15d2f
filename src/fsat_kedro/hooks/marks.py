"""Marks on the outputs that a run is about to make and has not yet saved."""

from dataclasses import dataclass

from fsat_kedro.errors import InputError
from fsat_kedro.files import connected, remove

UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class Marks:
    """Marks as empty files or objects, `{data_dir}/.unfinished/{name}`.

    Attributes:
        data_dir: path or url of the folder that the outputs are in.
    """

    data_dir: str

    def mark_unfinished(self, names: set[str]) -> None:
        """Mark outputs before a run makes them: what exists may be old or half-written."""
        with connected(self._folder) as (file_system, folder):
            file_system.pipe({f"{folder}/{name}": b"unfinished" for name in names})

    def mark_finished(self, name: str) -> None:
        """Clear the mark of an output that is saved."""
        remove(f"{self._folder}/{name}")

    def unfinished(self) -> set[str]:
        """Return the names of all marked outputs."""
        with connected(self._folder) as (file_system, folder):
            try:
                return {path.rpartition("/")[2] for path in file_system.find(folder)}
            except FileNotFoundError:
                return set()

    def require_finished(self, names: set[str]) -> None:
        """Raise an error if datasets are marked.

        Raises:
            InputError: one of them is marked.
        """
        bad = names & self.unfinished()
        if bad:
            raise InputError(
                f"not finished in {self.data_dir}: {', '.join(sorted(bad))}. The run that "
                "writes this was interrupted or is still running. Finish it with `kedro run "
                "--only-missing-outputs` and the --env and --params of that run"
            )

    @property
    def _folder(self) -> str:
        return f"{self.data_dir}/{UNFINISHED}"
