"""A table in a parquet file.  python train.py model=net data=parquet data.path=bank.parquet data.target=y"""

from collections.abc import Iterator
from pathlib import Path

from normlab.data.tables.arrow import parquet_portions, read_parquet
from normlab.data.tables.frames import FrameTable
from normlab.data.tables.text import is_parquet
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError, Problems


class Parquet(FrameTable):
    """Columns of numbers, texts and truth values; integers are numbers unless `categorical` names them."""

    def read(self, path: Path, where: str, problems: Problems) -> Frame:
        return read_parquet(path, where)

    def portions(self, path: Path, where: str, rows: int) -> Iterator[Frame]:
        if path.is_file() and not is_parquet(path):
            raise ConfigError(f"{where}: this is no parquet file, and the run was trained on one: write it as parquet")
        return parquet_portions(path, where, rows)
