"""`hydra/sweeper=grid`, the default: every combination once; the same command with the same name goes on."""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from normlab.config.overrides import parse
from normlab.config.space import Job
from normlab.errors import ConfigError
from normlab.folder import lock, place, reuse, writing
from normlab.folder.files import holds_run, known_result, read_config
from normlab.folder.identity import LENGTH, config_hash
from normlab.sweeps.launchers.queue import NumberedJob, serve
from normlab.sweeps.sweeper import EngineSweeper
from normlab.sweeps.watch import Watch


class GridSweeper(EngineSweeper):
    """Runs the jobs of the command line that have not finished in the sweep's folder.

    max_batch_size: how many run at a time, or are launched together where a launcher takes batches; None: all. params:
    values to sweep that are not typed.

    A job is known by its configuration's hash. One that was begun before goes on in its numbered folder, and a new one
    gets the next free number. Other jobs in the sweep's folder are left alone. Raises ConfigError where the folder
    holds no such sweep, and SweepError at the end if jobs failed.
    """

    def __init__(self, max_batch_size: int | None, params: DictConfig | None):
        self.max_batch_size, self.params = max_batch_size, params

    def sweep(self, arguments: list[str]) -> None:
        path = Path(self.settings.hydra.sweep.dir)
        check_place(path)
        path.mkdir(parents=True, exist_ok=True)
        with lock.hold(path):
            writing.write_text(path / "multirun.yaml", OmegaConf.to_yaml(self.settings))
            begun = earlier(path)
            places = by_folder(path, begun, self.loader.known)
            todo = {n: job for n, job in places.items() if not is_finished(begun.get(n, {}), job)}
            keys = {line.partition("=")[0] for job in self.loader.known for line in job.chosen}
            with Watch(path, len(self.loader.known), keys, places) as watch:
                if begun:
                    watch.say(_resumed(path, len(places) - len(todo), len(places), len(begun.keys() - places.keys())))
                failed = self._run(todo, watch)
        if failed:
            raise watch.error(failed)

    def _run(self, todo: dict[int, Job], watch: Watch) -> list[int]:
        """Runs jobs, and returns which of them failed."""
        failed = []

        def ended(number: int, returned: JobReturn) -> None:
            if watch.failed(number, returned):
                failed.append(number)

        jobs = (NumberedJob(number, job.overrides) for number, job in todo.items())
        serve(self.engine, partial(next, jobs, None), ended, min(self.max_batch_size or len(todo), len(todo)))
        return sorted(failed)


def earlier(path: Path) -> dict[int, dict[str, Any]]:
    """The results of the jobs that a sweep's folder holds, by number."""
    results = {int(entry.name): known_result(entry) for entry in path.iterdir() if entry.name.isdecimal()}
    return {number: results[number] for number in sorted(results) if results[number]}


def by_folder(
    path: Path,
    begun: dict[int, dict[str, Any]],
    jobs: Sequence[Job],
    taken: Collection[int] = frozenset(),
    occupied: Collection[int] | None = None,
) -> dict[int, Job]:
    """The jobs by the number of their folder: where a job was begun before, or the next free number.

    taken: numbers that other jobs have; occupied: those whose folders are not free, where that is known.
    """
    occupied = occupied_in(path) if occupied is None else occupied
    sharing = Counter(job.config_hash for job in jobs)
    known = _numbers_by({number: result["config_hash"] for number, result in begun.items()})
    shorter = _numbers_by({number: _shorter(path / str(number)) for number in begun if any(job.longer for job in jobs)})
    places: dict[int, Job] = {}
    new = []
    for job in jobs:
        numbers = [number for number in known.get(job.config_hash, []) if number not in places and number not in taken]
        if sharing[job.config_hash] > 1:  # these jobs differ in what the hash leaves out, such as compile=
            numbers = [number for number in numbers if _values(job.chosen) <= _values(begun[number]["overrides"])]
        numbers = numbers or [n for n in shorter.get(job.longer, []) if n not in places and n not in taken]
        if numbers:
            places[min(numbers, key=lambda number: (begun[number]["status"] != "finished", number))] = job
        else:
            new.append(job)
    free = (number for number in count() if not any(number in numbers for numbers in (places, taken, occupied)))
    places |= dict(zip(free, new, strict=False))
    return dict(sorted(places.items()))


def _values(lines: Sequence[str]) -> set[tuple[str, str]]:
    """The keys and values of overrides, the same for every way to type them."""
    return {(override.get_key_element(), repr(override.value())) for override in parse(lines)}


def _numbers_by(hashes: dict[int, str | None]) -> dict[str | None, list[int]]:
    numbers: dict[str | None, list[int]] = {}
    for number, each in hashes.items():
        numbers.setdefault(each, []).append(number)
    return numbers


def _shorter(path: Path) -> str | None:
    """The hash that a run has in common with one of more epochs; None where there is no run, or a damaged one."""
    try:
        return config_hash(read_config(path), but=LENGTH) if holds_run(path) else None
    except ConfigError:  # the job itself refuses a damaged folder
        return None


def occupied_in(path: Path) -> set[int]:
    """The numbers of the folders that no other job may have, as they hold more than a job's beginning."""
    beginning = reuse.UNTRAINED - {"result.json"}
    numbered = [entry for entry in path.iterdir() if entry.name.isdecimal()] if path.exists() else []
    begun = [each for each in numbered if not each.is_dir() or {file.name for file in each.iterdir()} - beginning]
    return {int(each.name) for each in begun}


def is_finished(result: dict[str, Any], job: Job) -> bool:
    return result.get("status") == "finished" and result["config_hash"] == job.config_hash


def check_place(path: Path) -> None:
    """Raises ConfigError where a folder is not a sweep's."""
    for file, what in (("study.db", "a search"), ("config.yaml", "a run"), ("result.json", "a run")):
        if (path / file).is_file():
            raise ConfigError(f"{place.shown(path)} holds {what}; choose another name=")


def _resumed(path: Path, finished: int, total: int, others: int) -> str:
    """A line on how many of this command's jobs a sweep's folder already holds, and how many others."""
    left = "" if finished == total else f", {total - finished} to run"
    there = f"; {others} of other commands stay as they are" if others else ""
    return f"{place.shown(path)}: {finished} of {total} jobs were finished before{left}{there}"
