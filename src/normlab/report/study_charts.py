"""Charts of a search's study: its history, which keys mattered, and the trade-off between objectives."""

import logging
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt

from normlab.report.charts import ACCENT, INK, MUTED, Spec, inline, rows_height, spec

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ENOUGH = 10  # with fewer trials, importances mean nothing

log = logging.getLogger(__name__)


def study_charts(folder: Path) -> tuple[list[tuple[str, str, Spec]], str | None]:
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


def _charts(study: "Study", folder: Path) -> Iterator[tuple[str, str, Spec]]:
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
) -> tuple[str, str, Spec]:
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
    ran = inline(["trial", "value", "best", "run"], rows)
    line = alt.Chart(ran).mark_line(interpolate="step-after", color=ACCENT, strokeWidth=2.2)
    line = line.encode(x=x, y=alt.Y("best:Q", title=name, scale=scale))
    dots = alt.Chart(ran).mark_point(size=40, color=INK).encode(x=x, y=y, tooltip=tips)
    crosses = alt.Chart(inline(["trial", "value", "run", "last epoch"], stopped)).mark_point(
        shape="cross", angle=45, size=40, color=MUTED
    )
    layers = [line, dots, *([crosses.encode(x=x, y=y, tooltip=[*tips, "last epoch:Q"])] if stopped else [])]
    caption = "Each circle is a trial, the line the best so far" + ("; crosses were pruned there." if stopped else ".")
    return "The search so far", caption, spec(alt.layer(*layers), height=240)


def _pareto(study: "Study", folder: Path, names: list[str], done: "list[FrozenTrial]") -> tuple[str, str, Spec]:
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
    others = alt.Chart(inline(columns, [row for row in rows if not row[2]])).mark_point(size=36, color=MUTED)
    best = alt.Chart(inline(columns, sorted(row for row in rows if row[2])))
    line = best.mark_line(color=ACCENT, strokeDash=[4, 3]).encode(x=x, y=y)
    dots = best.mark_point(size=70, filled=True, opacity=1, color=ACCENT, shape="diamond").encode(
        x=x, y=y, tooltip=tips
    )
    caption = f"No other trial beats a filled diamond in both {names[0]} and {names[1]} (the Pareto front)."
    return "The trade-off", caption, spec(alt.layer(others.encode(x=x, y=y, tooltip=tips), line, dots), height=280)


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


def _bars(importances: dict[str, float], name: str, trials: int) -> tuple[str, str, Spec]:
    rows = sorted(importances.items(), key=lambda item: -item[1])
    chart = alt.Chart(inline(["key", "share"], rows)).mark_bar(color=ACCENT, height=12)
    y = alt.Y(
        "key:N", sort=[key for key, _ in rows], title=None, axis=alt.Axis(labelLimit=170, domain=False, ticks=False)
    )
    x = alt.X("share:Q", title="share of the variance", axis=alt.Axis(format="%"))
    chart = chart.encode(x=x, y=y, tooltip=["key:N", alt.Tooltip("share:Q", format=".1%")])
    caption = f"How much of {name}'s variance each key explains (fANOVA over {trials} trials); a guide, not a test."
    return "What mattered in the search", caption, spec(chart, height=rows_height(len(rows)))
