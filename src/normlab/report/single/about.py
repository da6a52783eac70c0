"""What a run was made by and with, and the commands that go on from it."""

import shlex
from collections.abc import Iterator
from typing import Any

from normlab.folder.identity import LENGTH
from normlab.folder.place import ROOT
from normlab.report.facts import described
from normlab.report.runs import Run
from normlab.report.single.story import PARTS, Story
from normlab.report.single.words import share
from normlab.report.wording import number

PYTHON = ["python", "train.py"]


def facts(story: Story) -> Iterator[tuple[str, str]]:
    """(name, value) pairs for the head of the page; what is not known is left out."""
    run = story.run
    yield "run", name(run) or run.folder.absolute().name
    yield "status", run.status
    if story.best is not None:
        reached = dict(story.score_curve).get(story.best)
        scored = "" if reached is None else f", of 0 to {story.epochs - 1}: {run.score_name} {share(reached)}"
        yield "best epoch", f"{story.best}{scored}"
    if run.samples:
        yield "samples", ", ".join(f"{count:,} {PARTS.get(part, part)}" for part, count in run.samples.items())
    if (seed := run.config.get("seed")) is not None:
        yield "seed", str(seed)
    if run.parameters is not None:
        yield "parameters", f"{run.parameters:,}"
    if run.seconds is not None:
        yield "seconds", number(run.seconds, 1)
    if run.skipped:
        yield "skipped batches", str(run.skipped)
    if run.tags:
        yield "tags", ", ".join(run.tags)


def commands(story: Story) -> Iterator[tuple[str, str]]:
    """(what it does, command): the one that made the run, and those that go on from it."""
    run, own = story.run, name(story.run)
    typed = [line for line in run.overrides if line.partition("=")[0] not in ("name", "extend")]
    named = [line for line in run.overrides if line.startswith("name=")]
    if own and named and named != [f"name={own}"]:  # the name is the sweep's
        yield "It was made by a sweep; without one that is", _command(*typed)
    elif run.overrides:
        yield "It was made by", _command(*run.overrides)
    where = f"name={own}" if own else f"ckpt={run.folder.absolute() / 'checkpoints' / 'best.ckpt'}"
    if own and run.status in ("unfinished", "interrupted", "failed"):
        yield "Go on with it", _command(*typed, where)
    elif own and story.planned and story.checkpoint is not None:
        longer = [line for line in typed if line.partition("=")[0] != LENGTH]
        yield "Train it on", _command(*longer, where, "extend=true", f"{LENGTH}={2 * story.planned}")
    if story.checkpoint is not None and story.checkpoint.stem == "best":
        yield "Test it again", _command("action=test", where)
        yield "Predict", _command("action=predict", where) + " input=<file or folder>"


def environment(story: Story) -> list[tuple[str, str]]:
    """(name, value) pairs of the latest start."""
    if not story.starts:
        return []
    entry, starts = story.starts[-1], len(story.starts)
    pairs = [
        ("date", str(entry.get("time", ""))[:16].replace("T", " ")),
        ("starts", f"{starts}, of which this is the latest" if starts > 1 else ""),
        ("environment", described(entry)),
        ("platform", str(entry.get("platform", ""))),
        ("processes", str(entry.get("processes", ""))),
        ("commit", _commit(story, entry.get("git"))),
    ]
    return [(key, value) for key, value in pairs if value]


def packages(story: Story) -> list[tuple[str, str]]:
    """The versions of all that was installed at the latest start."""
    known = story.starts[-1].get("packages") if story.starts else None
    return [(str(key), str(version)) for key, version in known.items()] if isinstance(known, dict) else []


def name(run: Run) -> str | None:
    """The `name=` of a run in a folder `outputs`; None where it lies elsewhere."""
    parts = run.folder.absolute().parts
    if ROOT.name not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index(ROOT.name)
    return "/".join(parts[place + 1 :]) or None


def _commit(story: Story, git: Any) -> str:
    if not isinstance(git, dict) or not git.get("commit"):
        return "none: the working folder was no git repository"
    if not git.get("dirty"):
        return str(git["commit"])
    has = (story.run.folder / "changes.diff").is_file()
    return f"{git['commit']} with changes, {'which changes.diff has' if has else 'of which changes.diff is missing'}"


def _command(*typed: str) -> str:
    return shlex.join([*PYTHON, *typed])
