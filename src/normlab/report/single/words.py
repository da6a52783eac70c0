"""The sentences at the head of a run's page."""

from collections.abc import Callable

import numpy as np

from normlab.report.single import intervals
from normlab.report.single.answers import Answers
from normlab.report.single.intervals import Interval
from normlab.report.single.residuals import r2
from normlab.report.single.story import PARTS, Story
from normlab.report.wording import NOTHING, number, reason

SAME = 1e-3  # two scores that differ by less are one


def share(value: float) -> str:
    """A share, with three places."""
    return number(value, 3)


def figure(value: float) -> str:
    """Any number, with four digits."""
    return NOTHING if value != value else f"{value:.4g}".replace("-", "−")


def between(value: Interval, shown: Callable[[float], str] = share) -> str:
    """`0.940 to 0.990`."""
    return NOTHING if value.low != value.low else f"{shown(value.low)} to {shown(value.high)}"


def headline(story: Story) -> str:
    """What was trained on what, and what it scores, beside always guessing; or how far it came."""
    if story.run.status != "finished":
        return f"{story.made} {_state(story)}."
    return f"{story.made} {_score(story) or 'has no score'}."


def lead(story: Story) -> list[str]:
    """What the headline means."""
    answers, sentences = story.answers, []
    if answers is None:
        return sentences
    if story.run.status != "finished":
        sentences.append(f"Its best epoch so far {_score(story)}.")
    if answers.task == "regress":
        return [*sentences, _off(answers)]
    right = answers.predicted == answers.truth
    value, guess = _right(right), guessing(answers)[0]
    told = "better than" if value.low > guess else "worse than" if value.high < guess else "not told from"
    what = "samples" if right.ndim == 1 else f"labels, {right.shape[1]} a sample,"
    sentences.append(
        f"{right.sum():,} of {right.size:,} {PARTS[answers.part]} {what} are right. That is {told} guessing."
    )
    return sentences


def _off(answers: Answers) -> str:
    """How far numbers are off, beside always guessing the median."""
    off = np.abs(answers.said - answers.truth).mean(0)
    guessed = np.abs(answers.truth - np.median(answers.truth, axis=0)).mean(0)

    def told(values: np.ndarray) -> str:
        named = zip(values, answers.columns, strict=True)
        return " and ".join(figure(value) + (f" in {column.name}" if column.name else "") for value, column in named)

    return (
        f"Of {len(answers.truth):,} {PARTS[answers.part]} samples it is off by {told(off)} on average, where always "
        f"guessing the median is off by {told(guessed)}."
    )


def fine(story: Story) -> list[str]:
    """What a careful reader has to know of the numbers."""
    run, answers, sentences = story.run, story.answers, []
    if story.best is not None:
        unseen = ", and the test part was not looked at for that" if story.part == "test" else ""
        sentences.append(f"{run.score_name} chose the epoch, so {run.score_name} flatters{unseen}.")
    if answers is None:
        return sentences
    if answers.part == "val":
        sentences.append(
            "The data has no test part: all below is of the validation part, on which the epoch was chosen."
        )
    sentences.append(
        "Intervals hold for 95 % of other sets of as many samples from the same source; they say nothing of another "
        "training, or of other data."
    )
    name, now = _measured(answers)
    noted = run.metrics.get(name)
    if run.status == "finished" and noted is not None and abs(noted - now) > SAME:
        sentences.append(
            f"result.json notes {name} {share(noted)}, and the weights reach {share(now)}: the run measured other "
            f"samples, as with trainer.limit_{answers.part}_batches, or other weights."
        )
    return sentences


def guessing(answers: Answers) -> tuple[float, str]:
    """What always guessing the most frequent class would score, and which class that is."""
    if answers.task == "classify":
        counts = np.bincount(answers.truth, minlength=answers.said.shape[1])
        return float(counts.max() / counts.sum()), f"“{answers.columns[0].classes[int(counts.argmax())]}”"
    shares = answers.truth.mean(0)
    return float(np.maximum(shares, 1 - shares).mean()), "the more frequent class of each column"


def _state(story: Story) -> str:
    """How far a run came that has not finished."""
    status = story.run.status
    if status == "damaged":
        return f"is damaged: {reason(story.run)}".rstrip(".")
    verbs = {"unfinished": "is still running, or was killed,", "pruned": "was pruned by its search", "failed": "failed"}
    came = (
        f"after {story.epochs} epochs" if story.planned is None else f"after {story.epochs} of {story.planned} epochs"
    )
    why = f": {reason(story.run)}".rstrip(".") if story.run.error else ""
    return f"{verbs.get(status, f'was {status}')} {came}{why}"


def _score(story: Story) -> str:
    """`reaches test/acc 0.972 (95 % interval …); always guessing a would score 0.389`; empty where it is not known."""
    answers = story.answers
    if answers is None:
        return _noted(story)
    name, now = _measured(answers)
    if answers.task == "regress":
        interval = _interval(r2(answers.truth, answers.said))
        return f"reaches {name} {share(now)}{interval}; always guessing the mean would score 0"
    value = _right(answers.predicted == answers.truth)
    guess, guessed = guessing(answers)
    return f"reaches {name} {share(now)}{_interval(value)}; always guessing {guessed} would score {share(guess)}"


def _right(right: np.ndarray) -> Interval:
    """The share of right answers, (N,), or of right labels, (N, columns)."""
    return intervals.share(right.sum(), len(right)) if right.ndim == 1 else intervals.mean_of_shares(right.mean(1))


def _measured(answers: Answers) -> tuple[str, float]:
    """The metric that the headline has, and its value."""
    if answers.task == "regress":
        return f"{answers.part}/r2", r2(answers.truth, answers.said).value
    return f"{answers.part}/acc", float((answers.predicted == answers.truth).mean())


def _noted(story: Story) -> str:
    """The score as result.json has it, with an interval where it is a share of samples."""
    run = story.run
    name = next((n for n in ("test/acc", "test/r2", "val/acc", "val/r2", run.score_name) if n in run.metrics), None)
    if name is None:
        return ""
    stage, value = name.partition("/")[0], run.metrics[name]
    if not name.endswith("/acc"):
        return f"reaches {name} {share(value)}"
    count, shares = run.samples.get(stage), story.result.get("majority")
    guess = shares.get(stage) if isinstance(shares, dict) else None
    hits = None if count is None else round(value * count)
    interval = ""
    if hits is not None and count and abs(value - hits / count) < 1e-5:  # the mean over labels is no share of samples
        interval = _interval(intervals.share(hits, count))
    guessed = f"; always guessing one class would score {share(guess)}" if isinstance(guess, float) else ""
    return f"reaches {name} {share(value)}{interval}{guessed}"


def _interval(value: Interval) -> str:
    return "" if value.low != value.low else f" (95 % interval {between(value)})"
