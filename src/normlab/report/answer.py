"""The report's answer in sentences: by how much the best configuration leads, how sure that is, and on what grounds."""

from collections.abc import Iterator

from normlab.report.blocks import SEEDS
from normlab.report.comparison import Comparison, Configuration, counts, with_settings
from normlab.report.failed import failures
from normlab.report.settings import spelled
from normlab.report.statistics import sampling_error
from normlab.report.wording import counted, decimals, headline, interval, listed, number

NAMED = 4  # configurations that a sentence names
CEILING = 1 - 1e-9


def answer(comparison: Comparison) -> list[str]:
    """Sentences on how much the best one leads by and how sure that is."""
    if not comparison.ranked:
        return []
    return [*lead(comparison), *caveats(comparison)]


def lead(comparison: Comparison) -> Iterator[str]:
    """How far the best one is ahead of the next, and whether that is more than noise."""
    if len(comparison.ranked) < 2:
        if comparison.ranked:
            yield "There is no other configuration with a score to compare it with."
        return
    if comparison.best is None:
        yield from _nobody(comparison)
        return
    if comparison.best.lost:
        yield (
            "It leads also with each lost run counted as the worst score seen; as the runs that were lost might have "
            "scored anything, there is no interval of the lead."
        )
        return
    second = next((c for c in comparison.ranked if c.behind is not None), None)
    if second is None or second.behind is None:
        yield "No other configuration has run enough to be compared with it."
        return
    places, behind, units = decimals(comparison), second.behind, comparison.blocks.units
    ahead = f"It is {number(behind.mean, places)} ahead of the next, {second.label}"
    if not behind.known:
        yield f"{ahead}."
        yield _unknown(comparison)
        return
    over = f"over the {behind.count} {units} that all compared configurations have"
    if not comparison.paired:
        over = f"they share no two {units}"
    yield f"{ahead} (95 % interval {interval(behind, places)}, {over}).{_sampling(comparison, second, places)}"
    if behind.mean < 0:
        yield f"It is the best of the Pareto front, and not in {comparison.score_name} alone."
    elif second.tied:
        yield "That is within noise: these runs do not tell the two apart."
    else:
        yield "That is more than noise, for these samples."


def terminal(comparisons: list[Comparison]) -> str:
    """The answer in a few lines, for a terminal."""
    lines = []
    for comparison in comparisons:
        lines += [f"{spelled(comparison.data)}:"] if comparison.data else []
        lines += [headline(comparison), *lead(comparison)]
    if bad := failures(with_settings(comparisons)):
        lines.append(f"{counted(sum(len(failure.runs) for failure in bad), 'run')} without a score:")
        lines += [f"  {failure.where(3)} {failure.status}: {failure.reason[:100]}" for failure in bad[:5]]
        lines += [f"  and for {counted(len(bad) - 5, 'more reason')}"] if len(bad) > 5 else []
    return "\n".join(lines)


def _nobody(comparison: Comparison) -> Iterator[str]:
    if comparison.is_share and not comparison.minimized and comparison.ranked[0].score.mean >= CEILING:
        yield (
            f"Nobody is best: no {comparison.score_name} can be higher. score=val/loss score_mode=min would tell them "
            "apart further."
        )
    else:
        yield "Nobody is best: these runs do not tell them apart."


def _unknown(comparison: Comparison) -> str:
    units = comparison.blocks.units
    if len(comparison.blocks.names) > 1 or not comparison.paired:
        return f"How the {units} overlap is not known of these runs, and so nothing about noise."
    if comparison.blocks.unit == SEEDS:
        return (
            "With one seed nothing is known about noise: another seed may turn the order round. "
            "Sweep seeds too, such as seed=1,2,3,4,5."
        )
    return f"With fewer than two {units} that all have, nothing is known about noise."


def _sampling(comparison: Comparison, second: Configuration, places: int) -> str:
    """How much of the lead other samples might take away, where seeds share the same ones."""
    best = comparison.best
    if comparison.blocks.unit != SEEDS or not comparison.samples or not comparison.score_name.endswith("/acc"):
        return ""
    assert best is not None
    error = sampling_error(best.score.mean, second.score.mean, comparison.samples)
    part = {"val": "validation", "test": "test"}[comparison.score_name.partition("/")[0]]
    return (
        f" The scores are of {comparison.samples} {part} samples: with others, the lead would differ by up to "
        f"{number(error, places)} (95 %, binomial and unpaired, as predictions are not kept)."
    )


def _field(comparison: Comparison) -> Iterator[str]:
    """How many of the others could be the best as well."""
    others = [c for c in comparison.ranked if c.behind is not None and c.behind.known]
    if len(others) < 2:
        return
    tied = sum(c.tied for c in others)
    yield (
        f"Of the {len(others)} others, {tied or 'none'} cannot be told from the best (≈). Of sweeps with equal "
        "configurations alone, 5 % would tell any of them apart (Tukey’s studentized range over pooled noise)."
    )
    if own := [c for c in others if c.behind is not None and c.behind.own]:
        yield (
            f"{_named(own)} {'is' if len(own) == 1 else 'are'} compared by the variance of the pair alone, as a spread "
            "may be three times that of the others or more (Games and Howell)."
        )


def caveats(comparison: Comparison) -> list[str]:
    """What a reader of the answer has to know besides, the most important first."""
    if not comparison.ranked:
        return []
    ordered = (_looked_at, _budgets, not_compared, rests_on, _picked, _skipped, _repeated, _field)
    return [sentence for told in ordered for sentence in told(comparison)]


def _looked_at(comparison: Comparison) -> Iterator[str]:
    looked = [name for name in (comparison.score_name, *comparison.objectives) if name.startswith("test/")]
    if looked:
        yield (
            f"The test part was looked at: runs were chosen by {listed(list(dict.fromkeys(looked)))}, so test scores "
            "flatter too, and nothing is left to check them with."
        )


def _budgets(comparison: Comparison) -> Iterator[str]:
    for key in ("max_epochs", "max_steps"):
        trainers = (run.config.get("trainer") for run in comparison.runs if counts(run))
        budgets = {str(keys[key]) for keys in trainers if isinstance(keys, dict) and key in keys}
        if len(budgets) > 1:
            yield (
                f"Budgets are unequal: trainer.{key} is {listed(sorted(budgets, key=float))}. A longer run has a "
                "maximum over more epochs."
            )


def _skipped(comparison: Comparison) -> Iterator[str]:
    if skipped := sum(run.skipped for run in comparison.runs):
        where = [c for c in comparison.configurations if any(run.skipped for run in c.runs)]
        batches = "batch was" if skipped == 1 else "batches were"
        yield f"{skipped} {batches} left out of training by nonfinite=skip, in {_named(where)}."


def _repeated(comparison: Comparison) -> Iterator[str]:
    if repeated := sum(c.repeated for c in comparison.configurations):
        yield f"{counted(repeated, 'run')} with the settings and the seed of another counted once."


def rests_on(comparison: Comparison) -> Iterator[str]:
    """What was drawn at random, and so what the intervals are about."""
    blocks = comparison.blocks
    count = len(blocks.names) or max(c.score.count for c in comparison.ranked)
    if 1 < count < 5:
        yield f"All this rests on {count} {blocks.units}, which is few; sd and intervals are rough themselves."
    if blocks.unit == SEEDS and count > 1:
        sizes = _sizes(comparison)
        yield (
            f"Every claim is about the mean over seeds on these samples{f', {sizes}' if sizes else ''}: seeds change "
            "the training, not the split, and intervals say nothing about other data."
        )
    elif blocks.unit != SEEDS:
        averaged = ", over which seeds are averaged," if "seed" in comparison.replicates else ""
        yield (
            f"What is drawn at random are {blocks.units}{averaged} and they share training data: intervals are "
            "widened for that, by 1/J + n_test/n_train in place of 1/J (Nadeau and Bengio)."
        )


def _sizes(comparison: Comparison) -> str:
    """How many validation and test samples there are, where all runs agree."""
    sizes_by_part = []
    for part, word in (("val", "validation"), ("test", "test")):
        sizes = {run.samples[part] for run in comparison.runs if part in run.samples}
        sizes_by_part += [f"{sizes.pop()} for {word}"] if len(sizes) == 1 else []
    return " and ".join(sizes_by_part)


def not_compared(comparison: Comparison) -> Iterator[str]:
    if lost := [c for c in comparison.ranked if c.lost]:
        yield (
            f"{_named(lost)} lost runs (†): without an interval, and placed with each lost run counted as the worst "
            "score seen."
        )
    if late := [c for c in comparison.ranked if not c.lost and not c.compared]:
        yield f"{_named(late)} {'has' if len(late) == 1 else 'have'} too few {comparison.blocks.units} to be compared."


def _picked(comparison: Comparison) -> Iterator[str]:
    """How the winner was picked."""
    looked = any(name.startswith("test/") for name in comparison.objectives)
    if comparison.score_name.startswith("val/") and comparison.tests and not looked:
        yield (
            f"{comparison.score_name} picked each run’s best epoch and the winner, so it flatters; the test columns "
            "were not looked at for either."
        )
    if len(comparison.objectives) > 1:
        yield (
            f"The search was for {listed(comparison.objectives)}: the best is the one with the best "
            f"{comparison.score_name} on their Pareto front."
        )


def _named(configurations: list[Configuration]) -> str:
    names = [configuration.label for configuration in configurations]
    return listed(names) if len(names) <= NAMED else f"{len(names)} configurations"
