"""What the answer of a fair sweep does not say, as a short list."""

from collections.abc import Iterator

from normlab.report.answer import not_compared, rests_on
from normlab.report.fair.space import only_key
from normlab.report.fair.standing import LUCK, Contest, Standing
from normlab.report.fair.sweep import FairSweep, numbers
from normlab.report.fair.tuning import at_end
from normlab.report.fair.words import named
from normlab.report.wording import number

UNEQUAL = 1.5  # arms whose seconds differ by this factor had unequal shares of time


def small_print(sweep: FairSweep, contest: Contest) -> list[str]:
    """What the answer does not say, the most important first."""
    lines = [*_unfinished(sweep, contest)]
    if contest.comparison.ranked:
        lines += [*_tuning(sweep, contest), *_scope(sweep, contest), *_method(sweep, contest)]
    return lines


def _unfinished(sweep: FairSweep, contest: Contest) -> Iterator[str]:
    """Arms that are missing from the comparison, or are not compared on all their runs."""
    late = [each for each in contest.standings if 0 < _ended(each) < sweep.seeds]
    waiting = [each for each in contest.standings if not _ended(each) and each.arm.tuned is not None]
    if late or waiting:
        arms = named([*late, *waiting])
        yield f"The sweep is not at its end: fresh runs of {arms} are to come. The same command goes on."
    if failed := [each for each in contest.standings if 0 < len(each.arm.trials) == each.lost_trials]:
        yield f"Every trial of {named(failed)} was lost, and so there is no setting to run again."
    yield from not_compared(contest.comparison)
    if not contest.compared:
        units = contest.comparison.blocks.units
        yield f"With fewer than two fresh {units} that all have, nothing is known about noise."


def _ended(standing: Standing) -> int:
    return sum(run.score is not None or run.lost for run in standing.configuration.runs)


def _tuning(sweep: FairSweep, contest: Contest) -> Iterator[str]:
    """What tuning may have missed."""
    if sweep.confirm:
        yield (
            f"Compared are the {len(contest.standings)} trials that a search by {sweep.score} ended with. It looked at "
            "no test score, and others that it tried may be as good."
        )
        return
    outermost: dict[tuple[str, str], list[Standing]] = {}
    for each in contest.standings:
        key = only_key(each.arm)
        if key is not None and each.arm.tuned is not None:
            end = at_end(numbers(each.arm, key), float(each.arm.tuned.point[key]))
            outermost.setdefault((end, key), []).append(each)
    for (end, key), arms in outermost.items():
        if end:
            yield f"The tuned {key} of {named(arms)} is the {end} that was tried; a wider space may hold a better one."
    yield (
        "Each setting was chosen by single trainings, so with other trials an arm may get another one. Intervals are "
        f"widened for that, by {LUCK} of the variance of a run, which is what simulated sweeps need; an arm with a "
        "narrow range of good values may lose more."
    )


def _scope(sweep: FairSweep, contest: Contest) -> Iterator[str]:
    """What the claims are about."""
    yield from rests_on(contest.comparison)
    if contest.comparison.blocks.unit != "seed":
        yield (
            "Fresh runs have other parts of the data, cut from the same samples: what is tested here was in part "
            "trained on or validated on when the arms were tuned."
        )
    seconds = [each.tuning_seconds for each in contest.standings if each.tuning_seconds > 0]
    if sweep.budget == "trials" and len(seconds) > 1 and max(seconds) >= UNEQUAL * min(seconds):
        yield (
            f"Budgets are equal in trials and not in time: tuning took {number(min(seconds), 0)} to "
            f"{number(max(seconds), 0)} seconds of training. fair.budget=seconds asks the other question."
        )
    if sweep.budget == "seconds":
        counts = [len(each.arm.trials) for each in contest.standings]
        yield (
            f"Budgets are equal in seconds of training and not in trials, of which the arms had {min(counts)} to "
            f"{max(counts)}. fair.budget=trials asks the other question."
        )


def _method(sweep: FairSweep, contest: Contest) -> Iterator[str]:
    if len(contest.compared) > 1 and contest.groups:
        yield (
            "Letters are by Tukey’s studentized range over all pairs: of simulated sweeps of four equal arms with 16 "
            "trials and 12 fresh seeds, 2 to 4 % tell two apart, and 5 to 10 % where tuning finds the best rate less "
            "well."
        )
    if own := [e for e in contest.standings if e.configuration.behind is not None and e.configuration.behind.own]:
        yield f"{named(own)}: compared by the variance of the pair alone, as spreads are unequal (Games and Howell)."
    rates = [each for each in contest.standings if each.diverged.value == 0]
    if rates and len(rates) == len(contest.standings) and (most := max(each.diverged.high for each in rates)) > 0:
        yield f"No fresh run was lost; up to {number(100 * most, 0)} % might be (Wilson’s 95 % interval)."
