"""The figures of a data set as a person reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from normlab.data.common.targets import TargetColumn
from normlab.data.stats.measure import Match, Part, constant_columns, counted, counts, equal_columns
from normlab.data.tables.header import FILES
from normlab.data.tables.values import counts_rows

ROWS = 40  # a list of up to this many lines stands there whole; of a longer one only both ends do
FIRST = 5  # how many of a kind are named
IMBALANCE = 3  # a largest class of so many times the smallest deserves a hint
REMEDY = "look at task.metrics=[acc,f1,auroc], try task.class_weights=balanced"

Equal = Mapping[tuple[str, str], Sequence[Match]]  # by earlier and later part, which may be the same


def report(title: str, parts: Mapping[str, Part], target: Sequence[TargetColumn], equal: Equal) -> str:
    """The target, channels or columns, equal samples, and hints on what to do about them."""
    frame = parts["train"].frame
    sections = [
        title,
        _class_table(parts, target) if target[0].classes else _target_table(parts, target),
        _channels(parts["train"])
        if frame is None
        else _column_table(frame, "of the training part, before preprocessing"),
        _equal_samples(equal),
    ]
    return _joined(sections, [*_balance(parts, target), *_gaps(parts), *_columns(frame), *_leaks(equal)])


def report_unsplit(title: str, parts: Mapping[str, Part], equal: Equal) -> str:
    """The columns of each file, equal rows, and hints; of a table that cannot be split, so its target is a column."""
    tables = [
        _column_table(part.frame, f"of the file in data.{FILES[name]}")
        for name, part in parts.items()
        if part.frame is not None
    ]
    hints = [*_gaps(parts), *_columns(parts["train"].frame), *_leaks(equal)]
    return _joined([title, *tables, _equal_samples(equal)], hints)


def _joined(sections: Sequence[str], hints: Sequence[str]) -> str:
    listed = ["\n".join(["hints", *(f"  {hint}" for hint in hints)])] if hints else []
    return "\n\n".join([*sections, *listed])


def _class_table(parts: Mapping[str, Part], target: Sequence[TargetColumn]) -> str:
    classes = counted(target)
    of = {name: counts(part.targets, target).tolist() for name, part in parts.items()}
    order = sorted(range(len(classes)), key=lambda c: -of["train"][c]) if len(classes) > ROWS else range(len(classes))
    sizes = [len(part.targets) for part in parts.values()]
    rows = [[classes[c], *(of[part][c] for part in parts), f"{of['train'][c] / sizes[0]:.1%}"] for c in order]
    head = "class" if len(target) == 1 else "label"
    return _table([head, *parts, "of train"], [*_ends(rows), ["all", *sizes, ""]])


def _target_table(parts: Mapping[str, Part], target: Sequence[TargetColumn]) -> str:
    rows = []
    for place, column in enumerate(target):
        for name, part in parts.items():
            y = part.targets[:, place].double()
            label = f"{column.name}, {name}" if column.name else name
            rows.append([label, len(y), *map(_short, (y.mean(), y.std(correction=0), y.min(), y.median(), y.max()))])
    return _table(["target", "samples", "mean", "std", "min", "median", "max"], rows)


def _channels(train: Part) -> str:
    rows = [
        [str(place), _short(mean), _short(std)]
        for place, (mean, std) in enumerate(zip(train.moments.mean, train.moments.std, strict=True))
    ]
    lines = _table(["channel", "mean", "std"], _ends(rows))
    return f"{lines}\nvalues of the training part from {train.moments.low:.4g} to {train.moments.high:.4g}"


def _column_table(frame: pd.DataFrame, note: str) -> str:
    rows = []
    for name in frame:
        column: Any = frame[name]
        missing = int(column.isna().sum())
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            known = column.dropna().astype(float)
            figures = [_short(value) for value in (known.mean(), known.std(ddof=0), known.min(), known.max())]
            rows.append([str(name), missing, column.nunique(), *(figures if len(known) else ["", "", "", ""]), ""])
        else:
            usual = column.value_counts()
            most = f"{usual.index[0]} {usual.iloc[0] / len(column):.0%}" if len(usual) else ""
            rows.append([str(name), missing, column.nunique(), "", "", "", "", most])
    head = ["column", "missing", "values", "mean", "std", "min", "max", "most frequent"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return f"{_table(head, _ends(rows))}\n{note}"


def _equal_samples(equal: Equal) -> str:
    lines = []
    for (earlier, later), pairs in equal.items():
        if pairs:
            same = earlier == later
            differing = sum(not match.same_target for match in pairs)
            what = f"{len(pairs)} of {later} " + ("repeat one before" if same else f"stand in {earlier} too")
            other = f", {differing} with another target" if differing else ""
            parts = ("", "") if same else (f"{later} ", f"{earlier} ")
            named = [f"{parts[0]}{match.later} = {parts[1]}{match.earlier}" for match in pairs]
            lines.append(f"{what}{other}: {_some(named)}")
    return "\n".join(["equal samples", *(f"  {line}" for line in lines or ["none, within a part or between two"])])


def _balance(parts: Mapping[str, Part], target: Sequence[TargetColumn]) -> list[str]:
    classes, hints = counted(target), []
    if not classes:
        return []
    for name, part in parts.items():
        absent = [classes[c] for c, n in enumerate(counts(part.targets, target)) if not n]
        if absent:
            hints.append(f"{name} has no sample of {_some(absent)}")
    train = counts(parts["train"].targets, target)
    if len(target) > 1:
        shares = train / len(parts["train"].targets)
        rare = [
            f"{name} in {share:.1%}" for name, share in zip(classes, shares.tolist(), strict=True) if _is_far(share)
        ]
        return hints + ([f"far from half of the samples: {_some(rare)}: {REMEDY}"] if rare else [])
    present = train[train > 0]
    if present.max() >= IMBALANCE * present.min():
        usual = int(train.argmax())
        measured = parts.get("test", parts["train"]).targets
        guess = float((measured == usual).double().mean())
        hints.append(
            f"{classes[usual]} has {float(present.max() / present.min()):.3g} × the samples of the rarest class, and "
            f"always guessing it has an accuracy of {guess:.3f}: {REMEDY}"
        )
    return hints


def _is_far(share: float) -> bool:
    """Whether one of two classes has so many times the samples of the other that it deserves a hint."""
    return max(share, 1 - share) >= IMBALANCE * min(share, 1 - share)


def _gaps(parts: Mapping[str, Part]) -> list[str]:
    missing = {name: part.missing for name, part in parts.items() if part.missing}
    return [f"missing values: {', '.join(f'{n} in {name}' for name, n in missing.items())}"] if missing else []


def _columns(frame: pd.DataFrame | None) -> list[str]:
    if frame is None:
        return []
    constant = constant_columns(frame)
    hints = [f"constant, and so of no use: {_some(constant)}"] if constant else []
    equal = [f"{name} = {first}" for name, first in equal_columns(frame)]
    hints += [f"columns that say the same: {_some(equal)}"] if equal else []
    numeric = [name for name in frame if pd.api.types.is_numeric_dtype(frame[name])]
    counting = [str(name) for name in numeric if counts_rows(frame[name])]
    return hints + [f"{name} has a number of its own in each row: an id? data.drop=[{name}]" for name in counting]


def _leaks(equal: Equal) -> list[str]:
    return [
        f"{len(pairs)} of {later} are trained on, which makes its scores too good"
        for (earlier, later), pairs in equal.items()
        if earlier == "train" != later and pairs
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:FIRST]) + (f" and {len(names) - FIRST} more" if len(names) > FIRST else "")


def _short(value: Any) -> str:
    return f"{float(value):.4g}"


def _ends(rows: Sequence[list[Any]]) -> list[list[Any]]:
    """All rows, or of a long list the first and the last."""
    if len(rows) <= ROWS:
        return list(rows)
    half = ROWS // 2
    return [*rows[:half], [f"… {len(rows) - 2 * half} more"], *rows[-half:]]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [[str(cell) for cell in line] + [""] * (len(head) - len(line)) for line in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)
