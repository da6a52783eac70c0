"""Finds image files in folders of classes, or in folders of parts with classes inside."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from normlab.data.images.decoding import SUFFIXES
from normlab.errors import ConfigError

log = logging.getLogger(__name__)

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class ImageTree:
    """Image files of each part, relative to `root`, with the numbers of their classes."""

    root: Path
    classes: list[str]
    files: dict[str, list[str]]
    labels: dict[str, list[int]]


def find_classes(root: Path) -> ImageTree:
    """`<class>/…/<image>`, or `train/<class>/…/<image>` and the same for val (or valid, validation) and test.

    There are parts where `train` holds folders itself. Classes are those of the training part, in the order of their
    names. Hidden files and folders are passed over; what is no image by its name is counted in the log. Raises
    ConfigError where that leaves nothing to learn.
    """
    parts = _parts(str(root))
    classes = _folders(parts["train"])
    if not classes:
        expected = "expected <class>/<image> there, or train/<class>/<image>"
        raise ConfigError(f"data.path={root}: no folder of a class in {parts['train']}; {expected}")
    tree = ImageTree(root, classes, {}, {})
    ignored: Counter[str] = Counter()
    start = len(os.path.join(root, ""))
    for part, folder in parts.items():
        if unknown := sorted(set(_folders(folder)) - set(classes)):
            raise ConfigError(f"data.path={root}: classes that the training part lacks, in {folder}: {_few(unknown)}")
        pairs = [
            (file, number)
            for number, name in enumerate(classes)
            for file in _images(os.path.join(folder, name), ignored, (_place(folder),))
        ]
        tree.files[part] = [file[start:] for file, _ in pairs]
        tree.labels[part] = [number for _, number in pairs]
        outside = sum(not entry.name.startswith(".") and not _is_folder(entry) for entry in _entries(folder))
        if outside:
            log.warning(f"{folder}: left out, beside the folders of classes: {outside} files")
    _tell(root, ignored)
    return tree


def check_classes(tree: ImageTree) -> None:
    """Raises ConfigError for a single class, and for classes without an image to learn from."""
    counts = Counter(tree.labels["train"])
    if not counts:
        raise ConfigError(f"data.path={tree.root}: no images; they end in {' '.join(SUFFIXES)}")
    if empty := [name for number, name in enumerate(tree.classes) if not counts[number]]:
        raise ConfigError(f"data.path={tree.root}: folders of classes without an image: {_few(empty)}; remove them")
    if len(tree.classes) == 1:
        raise ConfigError(f"data.path={tree.root}: a single class, {tree.classes[0]}; it takes two to tell apart")
    for part, labels in tree.labels.items():
        if not labels:
            raise ConfigError(f"data.path={tree.root}: no images in its part {part}")
        there = set(labels)
        if absent := [name for number, name in enumerate(tree.classes) if number not in there]:
            log.warning(f"{tree.root}: its part {part} has no images of {_few(absent)}")


def find_images(path: Path) -> tuple[Path, list[str]]:
    """A folder, and the names in it of the image file `path`, or of all images under the folder `path`."""
    if not path.is_dir():
        return path.parent, [path.name]
    ignored: Counter[str] = Counter()
    names = [file[len(os.path.join(path, "")) :] for file in _images(str(path), ignored)]
    if not names:
        raise ConfigError(f"{path} holds no images; they end in {' '.join(SUFFIXES)}")
    _tell(path, ignored)
    return path, names


def find_labelled(path: Path, classes: Sequence[str]) -> tuple[Path, list[str], list[int]]:
    """The images in `<path>/<class>/…`, by their names under `path`, and the numbers of their classes.

    Raises ConfigError for a folder that is none of the classes, and where no image lies in one.
    """
    known = [str(name) for name in classes]
    named = f"folders of the classes that the run knows: {_few(known)}"
    if not path.is_dir():
        raise ConfigError(f"input={path}: a single image has no class; expected a folder with {named}")
    if unknown := sorted({*_folders(str(path))} - {*known}):
        raise ConfigError(f"input={path}: the run knows no class {_few(unknown)}; expected {named}")
    ignored: Counter[str] = Counter()
    start = len(os.path.join(path, ""))
    pairs = [
        (file[start:], number)
        for number, name in enumerate(known)
        for file in _images(os.path.join(path, name), ignored, (_place(str(path)),))
    ]
    if not pairs:
        raise ConfigError(f"input={path} holds no images in {named}")
    if outside := sum(not entry.name.startswith(".") and not _is_folder(entry) for entry in _entries(str(path))):
        log.warning(f"{path}: left out, beside the folders of classes: {outside} files")
    _tell(path, ignored)
    return path, [name for name, _ in pairs], [number for _, number in pairs]


def _tell(root: Path, ignored: Counter[str]) -> None:
    if ignored:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in ignored.most_common())
        log.warning(f"{root}: left out, being no images by their names: {ignored.total()} files ({kinds})")


def _parts(root: str) -> dict[str, str]:
    """The folder of each part; that of the training part alone where the set comes in one."""
    folders = _folders(root)
    if "train" not in folders or not _folders(os.path.join(root, "train")):
        if folders and set(folders) <= PARTS.keys() and len(folders) > 1:
            raise ConfigError(f"data.path={root}: {', '.join(folders)} and no train/<class>/<image>")
        return {"train": root}
    parts: dict[str, str] = {}
    for name in folders:
        if name not in PARTS:
            log.warning(f"{root}: {name}, beside train, is no part and is left out")
        elif PARTS[name] in parts:
            raise ConfigError(f"data.path={root}: two folders of the part {PARTS[name]}: keep one")
        else:
            parts[PARTS[name]] = os.path.join(root, name)
    return {name: parts[name] for name in ("train", "val", "test") if name in parts}


def _folders(folder: str) -> list[str]:
    return [entry.name for entry in _entries(folder) if not entry.name.startswith(".") and _is_folder(entry)]


def _images(folder: str, ignored: Counter[str], above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Every image under a folder, links followed, in the order of names. Raises ConfigError for a loop of links."""
    if not os.path.isdir(folder):
        return
    above = (*above, _place(folder))
    if above[-1] in above[:-1]:
        raise ConfigError(f"{folder} is a link back to a folder that it lies in: remove it")
    for entry in _entries(folder):
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _images(entry.path, ignored, above)
        elif entry.name.lower().endswith(SUFFIXES) and (entry.is_symlink() or entry.is_file()):
            yield entry.path
        else:
            ignored[os.path.splitext(entry.name)[1] or "without a suffix"] += 1


def _place(folder: str) -> tuple[int, int]:
    """An id that is the same for all paths to one folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be listed: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
