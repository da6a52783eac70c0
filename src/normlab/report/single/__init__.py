"""The page of one run: how it trained, what it gets right and wrong, what its layers hold, and what it was made by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normlab.report.runs import Run
    from normlab.report.single.answers import Look

__all__ = ["RunPage", "write_run_page"]


@dataclass(frozen=True)
class RunPage:
    """What was written: the page, its headline, and what is missing on it."""

    file: Path
    headline: str
    missing: Sequence[str]

    def __str__(self) -> str:
        """The essence, for a terminal."""
        from normlab.folder.place import shown

        return "\n".join(
            [self.headline, *(f"left out: {line}" for line in self.missing), str(shown(self.file.absolute()))]
        )


def write_run_page(folder: str | Path, out: str | Path | None = None, trusted: Sequence[str] = ()) -> RunPage:
    """Writes report.html about the run in a folder. Imports torch where there is a checkpoint to look at.

    out: the folder to write into; None takes the run's own. trusted: packages whose parts the folder may name, beside
    those of `conf/local`. What cannot be had, such as the data, is left out and named. Raises ConfigError where the
    folder holds no fit, or one of a newer version, and where the page cannot be written.
    """
    from normlab.errors import ConfigError
    from normlab.report.runs import read_run

    path = Path(folder)
    run = read_run(path)
    if run is None:
        raise ConfigError(f"{path} holds what an action found, and no run of its own: give the folder above it")

    from normlab.folder import writing
    from normlab.folder.place import check_place
    from normlab.report.single.page import page
    from normlab.report.single.story import Story
    from normlab.report.single.words import headline

    place = path if out is None else Path(out)
    check_place(place, "--out <folder> writes the page elsewhere")
    seen, checkpoint = _seen(run, trusted)
    story = Story(run, seen, checkpoint)
    html = page(story)
    place.mkdir(parents=True, exist_ok=True)
    writing.write_text(place / "report.html", html)
    return RunPage(place / "report.html", headline(story), seen.missing)


def _seen(run: "Run", trusted: Sequence[str]) -> "tuple[Look, Path | None]":
    """What the best checkpoint says and holds, and its file; of a run that kept another one, that of the last epoch."""
    from normlab.errors import ConfigError
    from normlab.report.single.answers import Look
    from normlab.report.single.story import part

    files = (run.folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    checkpoint = next((file for file in files if file.is_file()), None)
    if checkpoint is None:
        return Look(missing=[f"{_kept(run)}, so nothing can be said of single samples, layers or parameters."]), None

    from normlab.report.single.look import look  # with torch

    try:
        seen = look(run.folder, checkpoint, part(run), trusted)
    except ConfigError as error:
        return Look(missing=[f"{error}."]), None
    if checkpoint.stem == "last":
        seen.missing.append("The best epoch was not kept: all that is said of weights is of the last one.")
    return seen, checkpoint


def _kept(run: "Run") -> str:
    keep = run.config.get("keep")
    kept = f" (keep=[{', '.join(map(str, keep))}])" if isinstance(keep, list) and run.status == "finished" else ""
    return f"The run has no checkpoint{kept}"
