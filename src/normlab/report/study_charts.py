"""Charts of a search's study: its history, which keys mattered, and the trade-off between objectives."""

import logging
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt

from normlab.report.chart import Chart
from normlab.report.charts import ACCENT, INK, MUTED, inline, named, rows_height, spec, wrapped
from normlab.report.curves import thin

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ENOUGH = 10  # with fewer trials, importances mean nothing
TRIALS = 800  # the most that are drawn, an even choice of all

log = logging.getLogger(__name__)


def study_charts(folder: Path) -> tuple[list[tuple[str, str, Chart]], str | None]:
    """(title, what it shows, chart) of the search in a sweep's folder, and what had to be left out."""
    file = folder / "study.db"
    if not file.is_file():
        return [], None
    try:
        import optuna
    except ImportError:
        return [], "The search's own plots are left out: pip install 'normlab[optuna]', then report again."
    try:
        storage = f"sqlite:///{file.absolute()}"
        study = optuna.load_study(study_name=optuna.get_all_study_names(storage)[0], storage=storage)
        return list(_charts(study, folder)), None
    except Exception as error:  # SQLAlchemy's and SQLite's, of a file that is cut off or of another version
        return [], f"The search's own plots are left out: {file} cannot be read ({type(error).__name__})."


def _charts(study: "Study", folder: Path) -> Iterator[tuple[str, str, Chart]]:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    names = study.user_attrs["objectives"]
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    if not done:
        return
    yield _history(study, folder, names[0], done, pruned)
    if len(study.directions) > 1:
        yield _pareto(study, folder, names, done)
    if len(done) >= ENOUGH and (importances := _importances(study)):
        yield _bars(importances, names[0], len(done))


def _history(
    study: "Study", folder: Path, name: str, done: "list[FrozenTrial]", pruned: "list[FrozenTrial]"
) -> tuple[str, str, Chart]:
    better = min if study.directions[0].name == "MINIMIZE" else max
    values = [trial.values[0] for trial in done]
    best = list(accumulate(values, better))
    rows = [(t.number, v, b, str(folder / str(t.number))) for t, v, b in zip(done, values, best, strict=True)]
    stopped = [
        (
            t.number,
            t.intermediate_values[max(t.intermediate_values)],
            str(folder / str(t.number)),
            max(t.intermediate_values),
        )
        for t in pruned
    ]
    scale = alt.Scale(zero=False)
    x, y = alt.X("trial:Q", axis=alt.Axis(tickMinStep=1, format="d")), alt.Y("value:Q", title=name, scale=scale)
    tips = ["run:N", alt.Tooltip("value:Q", title=name, format=".5~g")]
    ran = inline(["trial", "value", "best", "run"], thin(rows, TRIALS))
    line = alt.Chart(ran).mark_line(interpolate="step-after", color=ACCENT, strokeWidth=2.2)
    line = line.encode(x=x, y=alt.Y("best:Q", title=name, scale=scale))
    dots = alt.Chart(ran).mark_point(size=40, color=INK).encode(x=x, y=y, tooltip=tips)
    crosses = alt.Chart(inline(["trial", "value", "run", "last epoch"], thin(stopped, TRIALS))).mark_point(
        shape="cross", angle=45, size=40, color=MUTED
    )
    layers = [line, dots, *([crosses.encode(x=x, y=y, tooltip=[*tips, "last epoch:Q"])] if stopped else [])]
    caption = "Each circle is a trial, the line the best so far" + ("; crosses were pruned there." if stopped else ".")
    raised = [(t.number, v) for t, v, b, last in zip(done, values, best, [None, *best], strict=False) if b != last]
    says = (
        f"{name} of {len(done)} trials; the best so far was reached by trial {raised[-1][0]} with {raised[-1][1]:.5g}."
    )
    chart = Chart(
        "history", spec(alt.layer(*layers), height=240), says, ["trial that was the best so far", name],
        [[str(number), f"{value:.5g}"] for number, value in raised],
    )  # fmt: skip
    return "The search so far", caption, chart


def _pareto(study: "Study", folder: Path, names: list[str], done: "list[FrozenTrial]") -> tuple[str, str, Chart]:
    """A chart of the first two objectives, with the trials that no other one beats in both."""
    front = {trial.number for trial in study.best_trials}
    rows = [(t.values[1], t.values[0], t.number in front, str(folder / str(t.number))) for t in done]
    scale = alt.Scale(zero=False)
    x, y = alt.X("x:Q", title=names[1], scale=scale), alt.Y("value:Q", title=names[0], scale=scale)
    tips = [
        "run:N",
        alt.Tooltip("value:Q", title=names[0], format=".5~g"),
        alt.Tooltip("x:Q", title=names[1], format=".5~g"),
    ]
    columns = ["x", "value", "front", "run"]
    others = alt.Chart(inline(columns, thin([row for row in rows if not row[2]], TRIALS))).mark_point(
        size=36, color=MUTED
    )
    best = alt.Chart(inline(columns, sorted(row for row in rows if row[2])))
    line = best.mark_line(color=ACCENT, strokeDash=[4, 3]).encode(x=x, y=y)
    dots = best.mark_point(size=70, filled=True, opacity=1, color=ACCENT, shape="diamond").encode(
        x=x, y=y, tooltip=tips
    )
    caption = f"No other trial beats a filled diamond in both {names[0]} and {names[1]} (the Pareto front)."
    drawing = spec(alt.layer(others.encode(x=x, y=y, tooltip=tips), line, dots), height=280)
    unbeaten = sorted((t.number, t.values[0], t.values[1]) for t in done if t.number in front)
    numbers = [[str(number), f"{first:.5g}", f"{second:.5g}"] for number, first, second in unbeaten]
    says = f"{names[0]} against {names[1]} of {len(done)} trials, of which {len(front)} are on the Pareto front."
    return "The trade-off", caption, Chart("trade-off", drawing, says, ["trial on the front", *names[:2]], numbers)


def _importances(study: "Study") -> dict[str, float]:
    """Optuna's importances for the first objective; empty where there are none, as when all scores are equal."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    try:
        return get_param_importances(
            study, evaluator=FanovaImportanceEvaluator(seed=0), target=lambda trial: trial.values[0]
        )
    except (ValueError, RuntimeError) as error:
        log.debug(f"no importances: {error}")
        return {}


def _bars(importances: dict[str, float], name: str, trials: int) -> tuple[str, str, Chart]:
    rows = sorted(importances.items(), key=lambda item: -item[1])
    keys = [wrapped(key) for key, _ in rows]
    shares = [(key, share) for key, (_, share) in zip(keys, rows, strict=True)]
    bars = alt.Chart(inline(["key", "share"], shares)).mark_bar(color=ACCENT, height=12)
    x = alt.X("share:Q", title="share of the variance", axis=alt.Axis(format="%"))
    bars = bars.encode(x=x, y=named("key", keys), tooltip=["key:N", alt.Tooltip("share:Q", format=".1%")])
    caption = f"How much of {name}'s variance each key explains (fANOVA over {trials} trials); a guide, not a test."
    numbers = [[key, f"{share:.1%}"] for key, share in rows]
    says = f"Share of the variance of {name} that each key explains: {', '.join(' '.join(row) for row in numbers)}."
    chart = Chart("importances", spec(bars, height=rows_height(keys)), says, ["key", "share of the variance"], numbers)
    return "What mattered in the search", caption, chart
