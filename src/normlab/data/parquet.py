"""A table in a parquet file.  python train.py model=net data=parquet data.path=bank.parquet data.target=y"""

from pathlib import Path

import pandas as pd

from normlab.data.tables.frames import FrameTable
from normlab.data.tables.text import check_file
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError, Problems


class Parquet(FrameTable):
    """Columns of numbers, texts and truth values; integers are numbers unless `categorical` names them."""

    def read(self, path: Path, where: str, problems: Problems) -> Frame:
        check_file(path, where)
        try:
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's own errors are among these
            raise ConfigError(f"{where}: {error}") from error
        frame.columns = frame.columns.map(str)
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise ConfigError(f"{where}: columns with the same name: {', '.join(twice[:5])}")
        if frame.empty:
            raise ConfigError(f"{where}: the table has no rows")
        return frame.reset_index(drop=True)
