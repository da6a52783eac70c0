"""What tables from files share: columns told apart, missing values and categories as numbers, new files."""

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
from pandas.core.util.hashing import hash_pandas_object
from torch import Tensor, nn

from normlab.data.common.base import DataModule
from normlab.data.common.fingerprint import Fingerprint, of_columns
from normlab.data.common.portions import Portion, as_rows
from normlab.data.tables.coded import Decoder, coded, coded_facts
from normlab.data.tables.columns import Columns, find_columns
from normlab.data.tables.embeddings import Embeddings
from normlab.data.tables.header import FILES, check_keys, column_names
from normlab.data.tables.messages import describe, tell_unused
from normlab.data.tables.new_rows import NewRows, check_kept, numbered
from normlab.data.tables.preprocessing import Preprocessing, fit
from normlab.data.tables.target import Target, Taught, find_target
from normlab.data.tables.values import Frame
from normlab.errors import ConfigError, Problems
from normlab.folder.files import damaged, read_facts
from normlab.folder.writing import write_text

log = logging.getLogger(__name__)

CELLS = 2**19  # of new samples that are read at once


class Rows:
    """Rows of a table, which a part is cut from by their places."""

    def __init__(self, frame: Frame, where: str):
        self.frame, self.where = frame, where

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, places: Tensor) -> "Rows":
        return Rows(self.frame.iloc[places.numpy()], self.where)


class FrameTable(DataModule):
    """A table with a column to learn, from one file that is split, or from up to three.

    path, val_path, test_path: the files. target: the column to learn, or several, which are all numbers or all of two
    classes each. numeric, categorical, drop: columns that the rules of `columns` would take for something else.
    categories: onehot, or embed for vectors that are trained with the network. task: classify or regress, None for a
    rule of `target`, which is logged. keep: columns that predictions carry; they are learned from only where numeric or
    categorical has them too.

    A missing number becomes the median of the training part, with a feature of its own that says so where the training
    part has gaps too; a missing category is a category. Numbers are standardised. A category that the training part
    lacks becomes all zeros. Raises ConfigError for what cannot be read, and where a person has to decide.
    """

    decimal = "."
    columns: Sequence[str] = ()  # the columns of the training file
    preprocessing: Preprocessing

    def __init__(
        self,
        path: str | None,
        target: str | Sequence[str] | None,
        val_path: str | None = None,
        test_path: str | None = None,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        categories: Literal["onehot", "embed"] = "onehot",
        task: Literal["classify", "regress"] | None = None,
        keep: Sequence[str] = (),
        **splits: Any,
    ):
        super().__init__(**splits)
        self.path, self.val_path, self.test_path = path, val_path, test_path
        self.targets = [] if target is None else column_names(target)
        self.categories, self.wanted_task = categories, task
        self.keep = [*map(str, keep)]
        self.lists = {"numeric": numeric, "categorical": categorical, "drop": drop}
        self.files: dict[str, Frame] = {}  # the columns to keep, for each file

    @abstractmethod
    def read(self, path: Path, where: str, problems: Problems) -> Frame:
        """The table in a file, rows numbered from 0; refusals of single rows are gathered, and these left out.

        Raises ConfigError for a file that cannot be read. All refusals begin with `where`.
        """

    def read_files(self, problems: Problems) -> dict[str, tuple[Frame, str]]:
        """The tables of the parts that have files, and where they are from; what is refused of them is gathered."""
        frames = {}
        for part, key in FILES.items():
            if (path := getattr(self, key)) is not None:
                where = f"data.{key}={path}"
                with problems.gather():
                    frames[part] = self.read(Path(path), where, problems), where
        return frames

    def load(self) -> dict[str, tuple[Any, Tensor]]:
        problems = Problems()
        return self.understand(self.read_files(problems), problems)

    def understand(self, frames: dict[str, tuple[Frame, str]], problems: Problems) -> dict[str, tuple[Any, Tensor]]:
        """Samples and targets of the parts, from their frames and where these are from; logs what they are.

        Raises ConfigError that says all that is wrong with the columns and the target at once, after the problems that
        reading them has gathered.
        """
        if "train" not in frames:
            problems.check()
        frame, where = frames["train"]
        with problems.gather():
            check_keys(list(frame.columns), self.lists | {"target": self.targets, "keep": self.keep}, where)
        if not {*self.targets} <= {*frame.columns}:
            problems.check()
        target = None
        with problems.gather():
            target = find_target(frame, where, self.targets, self.wanted_task, self.decimal)
        learned = {*map(str, self.lists["numeric"]), *map(str, self.lists["categorical"])}
        dropped = [*self.lists["drop"], *(name for name in self.keep if name not in learned)]
        lists = self.lists | {"drop": dropped}
        columns = find_columns(frame, where, self.targets, lists, self.decimal, problems)
        self.columns = list(frame.columns)
        for other, place in frames.values():
            tell_unused(other, self.columns, place)
        taken = {part: _taken(columns, target, *file, problems) for part, file in frames.items()}
        problems.check()
        assert target is not None
        self._state(target)
        self.sample_names = {part: numbered(frame) for part, (frame, _) in frames.items()}
        for file, place in frames.values():
            check_kept(self.keep, file, place)
        self.files = {part: file[self.keep] for part, (file, _) in frames.items()}
        log.info(describe(frame, where, columns, target))
        return taken

    def _state(self, target: Target) -> None:
        """Takes the facts from what the table teaches."""
        self.task = target.task
        self.out_features = len(target.columns)
        self.class_names = tuple(tuple(column.classes) for column in target.columns if column.classes)
        if target.task == "classify":
            (self.class_names,) = self.class_names
            self.out_features = len(self.class_names)
        self._name_targets()

    def _name_targets(self) -> None:
        self.target_names = tuple(self.targets) if len(self.targets) > 1 else ()

    def digests(self, samples: Rows, places: Tensor) -> Fingerprint:
        values: dict[str, Any] = {name: hash_pandas_object(samples.frame[name], index=False) for name in samples.frame}
        return of_columns((name, column.to_numpy()) for name, column in values.items())

    def preprocess(self, train: Rows) -> Callable[[Rows], Tensor]:
        numeric = [name for name in train.frame if train.frame[name].dtype == "float64"]
        categorical = [name for name in train.frame if name not in numeric]
        self.preprocessing, constant = fit(train.frame, numeric, categorical, self.categories == "embed")
        if constant:
            log.info(f"left out: {', '.join(constant)} (a single value in the training part)")
        if not self.preprocessing.width:
            raise ConfigError(f"{train.where}: no column is left to learn from")
        self.input_shape = (self.preprocessing.width,)
        return lambda rows: self.preprocessing.apply(rows.frame, rows.where)

    def entry(self) -> Callable[[Tensor], Tensor]:
        return Decoder(self.preprocessing)

    def raw_samples(self, part: str, places: Tensor) -> Tensor:
        return coded(self.preprocessing, cast(Rows, self.unprepared[part])[places].frame)

    def entry_facts(self) -> dict[str, Any]:
        return self.preprocessing.to_json()

    def raw_facts(self) -> dict[str, Any]:
        return coded_facts(self.preprocessing)

    def encoder(self) -> nn.Module | None:
        fitted = self.preprocessing
        if not fitted.embed or not fitted.categories:
            return None
        return Embeddings(fitted.plain, [len(column.values) for column in fitted.categories])

    def save(self, folder: Path) -> None:
        super().save(folder)
        facts = {"target": self.targets, "columns": self.columns, "preprocessing": self.preprocessing.to_json()}
        write_text(folder / "table.json", json.dumps(facts, indent=1) + "\n")

    def restore(self, folder: Path) -> None:
        super().restore(folder)
        file = folder / "table.json"
        facts = read_facts(file, ("target", "columns", "preprocessing"))
        self.targets, self.columns = column_names(facts["target"]), facts["columns"]
        self._name_targets()
        try:
            self.preprocessing = Preprocessing.from_json(facts["preprocessing"])
        except (LookupError, TypeError) as error:
            raise damaged(file) from error

    def read_new(self, path: Path, labelled: bool = False) -> Iterator[Portion]:
        """Rows are called by their numbers, from 1. The order of columns is free, and others are left out."""
        where = f"input={path}"
        rows = NewRows(where, self._learned(), self.preprocessing)
        if labelled:
            rows.target = self._target()
        else:
            rows.keep = self.keep
        for frame in self.portions(path, where, max(self.batch_size, CELLS // len(self.columns))):
            if frame.index[0] == 0:
                tell_unused(frame, self.columns, where)
            yield rows.portion(frame)
        rows.tell()

    def take_new(self, given: Any) -> Portion:
        """A frame, or an array of the columns `feature_names` in their order; cells as they stand in a file."""
        if not isinstance(given, pd.DataFrame):
            given = pd.DataFrame(as_rows(given, self.feature_names), columns=self.feature_names)
        frame = given.set_axis(given.columns.map(str), axis=1).reset_index(drop=True)
        if twice := [*frame.columns[frame.columns.duplicated()]]:
            raise ConfigError(f"X: columns with the same name: {', '.join(twice[:5])}")
        rows = NewRows("X", self._learned(), self.preprocessing)
        portion = rows.portion(self.given(frame))
        rows.tell()
        return portion

    def portions(self, path: Path, where: str, rows: int) -> Iterator[Frame]:
        """The table in a file, in portions of at most `rows` rows, which are numbered through from 0.

        Raises ConfigError, which begins with `where`.
        """
        problems = Problems()
        frame = self.read(path, where, problems)
        problems.check()
        yield frame

    def given(self, frame: Frame) -> Frame:
        """A frame from Python, with gaps where a file of such cells would have some."""
        return frame

    @property
    def feature_names(self) -> list[str]:
        """The columns that the network learned from, in the order of the training file."""
        learned = self._learned()
        return [name for name in self.columns if name in (*learned.numeric, *learned.categorical)]

    def _learned(self) -> Columns:
        fitted = self.preprocessing
        return Columns([c.name for c in fitted.numbers], [c.name for c in fitted.categories], self.decimal)

    def _target(self) -> Target:
        """What the run has learned, by the facts that its folder keeps."""
        classes = [self.class_names] if self.task == "classify" else self.class_names or [()] * len(self.targets)
        pairs = zip(self.targets, classes, strict=True)
        return Target(self.task, [Taught(name, [*map(str, of)], "", self.decimal) for name, of in pairs])

    def kept(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """`names` are those of the test part."""
        file = self.files.get("test", self.files.get("train"))  # a test part without a file is cut out of the first
        assert file is not None
        places = [int(name) - 1 for name in names]
        return {name: file[name].iloc[places].tolist() for name in self.keep}


def _taken(columns: Columns, target: Target | None, frame: Frame, where: str, problems: Problems) -> tuple[Any, Any]:
    """Samples and targets of a file; what is refused of them is gathered."""
    rows = wanted = None
    with problems.gather():
        rows = Rows(columns.take(frame, where), where)
    with problems.gather():
        wanted = None if target is None else target.take(frame, where)
    return rows, wanted
