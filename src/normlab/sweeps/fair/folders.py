"""The run folders of a fair sweep: each job has the one where it was begun before, or the next free number."""

from collections.abc import Collection, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from normlab.config.space import Job
from normlab.folder.files import known_result
from normlab.sweeps.grid import by_folder, earlier, occupied_in


class Folders:
    """Knows the jobs that a sweep's folder held when this began, by the hashes of their configurations."""

    def __init__(self, path: Path):
        self.path, self.begun, self.occupied = path, earlier(path), occupied_in(path)
        self.taken: set[int] = set()

    def place(self, jobs: Sequence[Job], reserved: Collection[int] = ()) -> list[int]:
        """The numbers of the folders of jobs, which no other job then gets. reserved: what was kept for them."""
        self.taken -= {*reserved}
        places = by_folder(self.path, self.begun, jobs, self.taken, self.occupied)
        numbers = {job: number for number, job in places.items()}
        self.taken |= {*numbers.values()}
        return [numbers[job] for job in jobs]

    def reserve(self, most: int) -> list[int]:
        """The next free numbers, which are kept for jobs that are not known yet."""
        free = (number for number in count() if number not in self.taken and number not in self.occupied)
        numbers = [*islice(free, most)]
        self.taken |= {*numbers}
        return numbers

    def knows(self, job: Job) -> bool:
        """Whether a job was begun before."""
        return any(result["config_hash"] == job.config_hash for result in self.begun.values())

    def before(self, number: int) -> dict[str, Any]:
        """The result that a folder held when this began; empty where there was none."""
        return self.begun.get(number, {})

    def result(self, number: int) -> dict[str, Any]:
        return known_result(self.path / str(number))
