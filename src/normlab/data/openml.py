"""A table of openml.org.  python train.py model=net data=openml data.name=credit-g"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.datasets import fetch_openml

from normlab.data.tables.frames import FrameTable
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError, Problems


class OpenML(FrameTable):
    """A data set by `name` and `version` (a number, or active for the newest that is in use), or by `id`.

    target: None takes the column that the set names. Downloaded once, into `root`.
    """

    def __init__(
        self,
        name: str | None = None,
        version: int | str = "active",
        id: int | None = None,
        target: str | Sequence[str] | None = None,
        root: str = "data",
        **table: Any,
    ):
        super().__init__(None, target, **table)
        if (name is None) == (id is None):
            raise ConfigError("data=openml needs data.name= or data.id=, and only one of them")
        self.root = root
        self.which: dict[str, Any] = {"data_id": id} if name is None else {"name": name, "version": version}

    def load(self) -> dict[str, tuple[Any, Any]]:
        where = ", ".join(f"data.{key.removeprefix('data_')}={value}" for key, value in self.which.items())
        try:
            bunch: Any = fetch_openml(**self.which, data_home=self.root, as_frame=True, parser="auto")
        except (OSError, ValueError) as error:  # no network, no such set, no table
            raise ConfigError(f"{where}: openml.org gave no table: {error}") from error
        self.targets = self.targets or [self._only(bunch.target_names, where)]
        return self.understand({"train": (bunch.frame.reset_index(drop=True), where)}, Problems())

    def _only(self, targets: list[str], where: str) -> str:
        if len(targets) != 1:
            named = ",".join(targets)
            raise ConfigError(
                f"{where}: the set names {len(targets)} targets: set data.target=[{named}], or to some of them"
            )
        return targets[0]

    def read(self, path: Path, where: str, problems: Problems) -> Frame:
        raise ConfigError(f"{where}: data=openml reads no files")
