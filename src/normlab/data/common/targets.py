"""What the columns of a target are called, and what their values mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normlab.errors import ConfigError


@dataclass(frozen=True)
class TargetColumn:
    """A column of the target.

    name: empty for one that stands alone and needs none. classes: what its values 0, 1, … mean; empty for numbers.
    """

    name: str
    classes: Sequence[str] = ()

    def key(self, kind: str) -> str:
        """What a table calls the column's `kind`, such as target or prediction."""
        return f"{kind}_{self.name}" if self.name else kind


def target_columns(data: Any) -> list[TargetColumn]:
    """The columns of a data module's target: one of classes; or one or more of numbers; or several of two classes each.

    Raises ConfigError where the module does not name all of them.
    """
    if data.task == "classify":
        return [TargetColumn("", class_names(data))]
    width = data.out_features
    names = getattr(data, "target_names", ()) or ([""] if width == 1 else [str(number) for number in range(width)])
    classes: Sequence[Sequence[str]] = [()] * width
    if data.task == "multilabel":
        classes = getattr(data, "class_names", ()) or [("0", "1")] * width
    if len(names) != width or len(classes) != width:
        raise ConfigError(f"target_names={list(names)}, class_names={list(classes)}: the target has {width} columns")
    return [TargetColumn(name, pair) for name, pair in zip(names, classes, strict=True)]


def class_names(data: Any) -> Sequence[str]:
    """The names of a data module's classes, by number; empty where a sample has no class, or several of them."""
    if data.task != "classify":
        return ()
    names = getattr(data, "class_names", None) or [str(number) for number in range(data.out_features)]
    if len(names) != data.out_features:
        raise ConfigError(f"class_names={list(names)}: the data has {data.out_features} classes")
    return names
