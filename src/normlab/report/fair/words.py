"""The answer of a fair sweep in sentences; each figure in them is computed elsewhere."""

from collections.abc import Iterator, Sequence

from normlab.report.fair.space import within
from normlab.report.fair.standing import Contest, Standing, ranked
from normlab.report.fair.sweep import Arm, FairSweep
from normlab.report.fair.tuning import leaders as leaders_by_trials
from normlab.report.settings import option, shortened, spelled
from normlab.report.wording import NOTHING, counted, decimals, interval, listed, number, score

NAMED = 4  # arms that a sentence names


def named(standings: Sequence[Standing]) -> str:
    names = [each.configuration.label for each in standings]
    return listed(names) if len(names) <= NAMED else f"{len(names)} arms"


def point(arm: Arm) -> str:
    """The tuned setting: `lr=0.031`."""
    if arm.tuned is None:
        return NOTHING
    return ", ".join(f"{key.rpartition('.')[2]}={shortened(str(value))}" for key, value in arm.tuned.point.items())


def headline(contest: Contest) -> str:
    """Which arm is best on its test score, and by how much that is sure."""
    comparison, best = contest.comparison, contest.best
    if not comparison.ranked:
        return "No arm has a test score yet."
    places, units = decimals(comparison), comparison.blocks.units
    if best is None:
        leaders = listed([each.label for each in comparison.first])
        mean = number(comparison.ranked[0].score.mean, places)
        return f"Nobody is best: {leaders} share {comparison.score_name} {mean} (mean over fresh {units})."
    name, count = best.configuration.label, best.configuration.score.count
    over = f"mean ± sd over {count} fresh {units}" if count > 1 else "one fresh run"
    reached = f"{comparison.score_name} {score(best.configuration.score, places)} ({over})"
    if best.configuration.lost:
        return f"{name} leads with {reached}, though {_lost(best)}."
    beaten, level = contest.beaten(best), contest.level(best)
    if level:
        return f"{name} leads with {reached}, and cannot be told from {named(level)}."
    if not beaten:
        return f"{name} {'leads with' if len(comparison.ranked) > 1 else 'has'} {reached}."
    others = "the other arm" if len(beaten) == 1 else f"all {len(beaten)} other arms"
    if len(beaten) < len(contest.standings) - 1:
        others = f"{named(beaten)}, the others that can be compared"
    return f"{name} is best: {reached}, more than noise ahead of {others}."


def lead(contest: Contest) -> Iterator[str]:
    """How far the best arm is ahead of the next, and who is out of the race."""
    comparison, best = contest.comparison, contest.best
    places = decimals(comparison)
    if best is None:
        return
    others = [each for each in contest.standings if each.configuration.behind is not None]
    if others and (behind := others[0].configuration.behind) is not None:
        ahead = f"It is {number(behind.mean, places)} ahead of the next, {others[0].configuration.label}"
        yield f"{ahead} (95 % interval {interval(behind, places)})." if behind.known else f"{ahead}."
    beaten, level = contest.beaten(best), contest.level(best)
    if beaten and level:
        yield f"It is more than noise ahead of {named(beaten)}."
    if lost := [each for each in contest.standings if each.diverged.value > 0]:
        yield f"Fresh runs were lost: {listed([f'{each.configuration.label} {_share(each)}' for each in lost])}."


def quote(sweep: FairSweep, contest: Contest) -> str:
    """One sentence with the result and with everything that was fixed; empty before there is a result."""
    comparison = contest.comparison
    if not comparison.ranked or not comparison.first:
        return ""
    count, units = comparison.ranked[0].score.count, comparison.blocks.units
    how = f"each of {counted(len(contest.standings), 'arm')} tuned by {_tuned_by(sweep)} and then"
    if sweep.confirm:
        how = f"the {len(contest.standings)} best trials of a search by {sweep.score} ({sweep.sampler})"
    return f"{_fixed(contest)}, {how} run again on {count} fresh {units}: {_result(sweep, contest)}."


def _result(sweep: FairSweep, contest: Contest) -> str:
    comparison, best = contest.comparison, contest.best
    places, estimate = decimals(comparison), comparison.first[0].score
    end = f"{'lowest' if comparison.minimized else 'highest'} {comparison.score_name}"
    if best is None:
        names = listed([each.label for each in comparison.first])
        return f"{names} share the {end} {number(estimate.mean, places)}"
    reached = score(estimate, places)
    reached += f" (95 % interval {interval(estimate, places)})" if interval(estimate, places) != NOTHING else ""
    beaten, level = contest.beaten(best), contest.level(best)
    told = [f"told from {listed([each.configuration.label for each in beaten])}"] if beaten else []
    told += [f"not told from {listed([each.configuration.label for each in level])}"] if level else []
    verdict = f", {' and '.join(told)} by Tukey’s studentized range at 5 %" if told else ""
    setting = "" if sweep.confirm else f" ({point(best.arm)})"
    return f"{best.configuration.label}{setting} has the {end} {reached}{verdict}"


def _tuned_by(sweep: FairSweep) -> str:
    spaces = {f"{key} {within(key, text)}" for arm in sweep.arms for key, text in arm.space.items()}
    count = f"{counted(sweep.trials, 'trial')}"
    if sweep.budget == "seconds":
        count = f"{number(sweep.seconds, 0)} training seconds"
    how = "" if sweep.sampler == "quasi_random" else f" by {sweep.sampler}"
    return f"{count}{how} of {listed(sorted(spaces))}, chosen by {sweep.score}"


def _fixed(contest: Contest) -> str:
    """What all runs had in common: the network, the data and its split, the length of a training."""
    run = contest.best.configuration.runs[0] if contest.best else contest.comparison.runs[0]
    data, trainer = run.config.get("data"), run.config.get("trainer")
    settings = contest.comparison.data | contest.standings[0].configuration.settings
    place = option(run, "data")
    said = f"On {place}" if "model" in settings else f"With {option(run, 'model')} on {place}"
    parts = []
    if isinstance(data, dict) and data.get("split_seed") is not None and contest.comparison.blocks.unit == "seed":
        parts.append(f"split {data['split_seed']}")
    if {"train", "test"} <= run.samples.keys():
        parts.append(f"{run.samples['train']} training and {run.samples['test']} test samples")
    epochs = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    parts += [f"{epochs} epochs"] if epochs else []
    return f"{said} ({', '.join(parts)})" if parts else said


def diverged(standing: Standing) -> str:
    """`1 of 10 (2 to 40 %)`: the share of fresh runs that were lost."""
    rate = standing.diverged
    count = len(standing.configuration.lost) + len(standing.configuration.scores)
    if not count:
        return NOTHING
    return f"{len(standing.configuration.lost)} of {count} ({100 * rate.low:.0f} to {100 * rate.high:.0f} %)"


def _share(standing: Standing) -> str:
    lost = len(standing.configuration.lost)
    return f"{lost} of {lost + len(standing.configuration.scores)}"


def _lost(standing: Standing) -> str:
    lost = len(standing.configuration.lost)
    return f"{_share(standing)} fresh runs {'was' if lost == 1 else 'were'} lost"


def refusals(sweep: FairSweep) -> list[str]:
    """Why arms did not run at all."""
    return [f"{arm.name} did not run: {arm.refused}" for arm in sweep.arms if arm.refused is not None]


def across(contests: Sequence[Contest]) -> str | None:
    """What the ranks over several data sets say; None where there are too few."""
    if (result := ranked(contests)) is None:
        return None
    names, ranks = result
    first = [name for name, rank in zip(names, ranks.mean, strict=True) if rank == ranks.mean[0]]
    rest = list(zip(names, ranks.apart[0], strict=True))[len(first) :]
    level = [name for name, apart in rest if not apart]
    parts = [f"not told from {listed(level) if len(level) <= NAMED else f'{len(level)} arms'}"] if level else []
    if beaten := len(rest) - len(level):
        parts.append(f"told from the other {counted(beaten, 'arm')}" if level else "told from all others")
    verdict = f", {', and '.join(parts)}" if parts else ""
    chance = "p < 0.0001" if ranks.p < 1e-4 else f"p = {ranks.p:.2g}"
    return (
        f"Over {ranks.count} data sets {listed(first)} {'has' if len(first) == 1 else 'have'} the best mean rank, "
        f"{ranks.mean[0]:.2f}{verdict} (critical difference {ranks.critical:.2f}, Nemenyi at 5 %; Friedman’s test that "
        f"all are equal: {chance})."
    )


def turns(curves: dict[str, list[float]], minimized: bool) -> str:
    """Who has the best expected score at how many trials."""
    ahead = leaders_by_trials(curves, minimized)
    if len(ahead) < 2:
        return "".join(f"{listed(arms)} {'is' if len(arms) == 1 else 'are'} ahead throughout." for arms, _, _ in ahead)
    parts = [
        f"{listed(arms)} {f'at {first}' if first == last else f'from {first} to {last}'}" for arms, first, last in ahead
    ]
    return f"Ahead are {listed(parts)} trials."


def terminal(sweep: FairSweep, contests: Sequence[Contest]) -> str:
    """The answer in a few lines, for a terminal."""
    lines = [*refusals(sweep), *([said] if (said := across(contests)) else [])]
    for contest in contests:
        lines += [f"{spelled(contest.comparison.data)}:"] if contest.comparison.data else []
        lines += [headline(contest), *lead(contest)]
    return "\n".join(lines)
