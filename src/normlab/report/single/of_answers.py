"""The sections of a run's page on what the network answers: right and wrong, calibrated, and worst."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from normlab.report.chart import Chart
from normlab.report.render import Placed
from normlab.report.single import charts
from normlab.report.single.answers import Answers, Sample
from normlab.report.single.calibration import Calibration, calibrate, log_loss
from normlab.report.single.classes import ClassScore, class_scores, confusion, mistakes
from normlab.report.single.residuals import number_score
from normlab.report.single.words import between, figure, share

CLASSES = 20  # the most classes of which all are set against all
CHARTED = 40  # the most classes in a chart
ROWS = 200  # the most rows of a table
NUMBERS = 12  # the most columns of numbers that are drawn
COLUMNS = 24  # the most cells of a sample that are shown

Place = Callable[[Chart | None], Placed | None]


def sections(answers: Answers, place: Place) -> dict[str, Any]:
    """What the template says of them. place: puts a chart on the page."""
    known: dict[str, Any] = {"worst": _worst(answers)}
    if answers.task == "classify":
        return known | {"classes": _classes(answers, place)}
    if answers.task == "multilabel":
        return known | {"labels": _labels(answers)}
    return known | {"numbers": _numbers(answers, place)}


def _classes(answers: Answers, place: Place) -> dict[str, Any]:
    """What a column of classes is taken for, its scores and its calibration."""
    names = [str(name) for name in answers.columns[0].classes]
    matrix = confusion(answers.truth, answers.predicted, len(names))
    scores = class_scores(matrix, names)
    sizes = np.maximum(matrix.sum(1, keepdims=True), 1)
    calibration = calibrate(answers.said.max(1), answers.predicted == answers.truth)
    small = len(names) <= CLASSES
    return {
        "names": names,
        "matrix": [*zip(names, matrix.tolist(), (matrix / sizes).round(3).tolist(), strict=True)] if small else None,
        "mistakes": mistakes(matrix, names, 10),
        "rows": [_class_row(each) for each in scores[:ROWS]],
        "hidden": max(0, len(scores) - ROWS),
        "chart": place(charts.class_scores(scores)) if len(names) <= CHARTED else None,
        "calibration": _calibration(calibration)
        | {"log_loss": figure(log_loss(answers.said, answers.truth)), "chart": place(charts.reliability(calibration))},
    }


def _class_row(score: ClassScore) -> list[str]:
    values = [score.precision, score.recall, score.f1]
    return [
        score.name,
        f"{score.there:,}",
        f"{score.predicted:,}",
        *(t for v in values for t in (share(v.value), between(v))),
    ]


def _calibration(calibration: Calibration) -> dict[str, Any]:
    sure = "more" if calibration.excess > 0 else "less"
    told = "within noise" if calibration.within_noise else "more than noise"
    off = f"On average the network is {share(abs(calibration.excess))} {sure} sure than it is right."
    rows = [
        (
            f"{b.count:,}",
            share(b.confidence),
            share(b.right.value),
            between(b.right),
            share(b.confidence - b.right.value),
        )
        for b in calibration.bins
    ]
    return {
        "error": f"{calibration.error:.3g}",
        "chance": f"{calibration.chance:.3g}",
        "limit": f"{calibration.limit:.3g}",
        "told": told,
        "off": off,
        "rows": rows,
    }


def _labels(answers: Answers) -> list[list[str]]:
    """A row for each column of labels: the scores of its second class, and its calibration."""
    rows = []
    for number, column in enumerate(answers.columns[:ROWS]):
        truth, predicted = answers.truth[:, number], answers.predicted[:, number]
        score = class_scores(confusion(truth, predicted, 2), column.classes)[1]
        probabilities = answers.class_probabilities(number)
        calibration = calibrate(probabilities.max(1), predicted == truth)
        told = "within noise" if calibration.within_noise else f"noise: {share(calibration.limit)}"
        cells = [column.name, score.name, *_class_row(score)[1:], f"{share(calibration.error)} ({told})"]
        rows.append(cells)
    return rows


def _numbers(answers: Answers, place: Place) -> list[dict[str, Any]]:
    """The scores of each column of numbers, and how far it is off in each fifth of its predictions."""
    columns = []
    for number, column in enumerate(answers.columns[:NUMBERS]):
        truth, said = answers.truth[:, number].astype(float), answers.said[:, number]
        score = number_score(truth, said)
        rows = [
            ("R²", share(score.r2.value), between(score.r2)),
            ("mean absolute error", figure(score.mae.value), between(score.mae, figure)),
            ("root of the mean squared error", figure(score.rmse), "–"),
            ("mean of prediction − truth", figure(score.bias.value), between(score.bias, figure)),
            ("mean absolute error of always guessing the median", figure(score.guessing), "–"),
        ]
        columns.append({
            "name": column.name,
            "rows": rows,
            "fifths": _fifths(truth, said),
            "chart": place(charts.residuals(truth, said)),
            "hidden": max(0, len(truth) - charts.DOTS),
        })  # fmt: skip
    return columns


def _fifths(truth: np.ndarray, said: np.ndarray) -> list[list[str]]:
    """Of each fifth of the samples, by prediction: its range, and how prediction − truth is spread."""
    order = np.argsort(said, kind="stable")
    rows = []
    for places in np.array_split(order, min(5, len(order))):
        off = said[places] - truth[places]
        spread = (figure(float(value)) for value in np.quantile(off, [0, 0.25, 0.5, 0.75, 1]))
        rows.append([f"{figure(said[places].min())} to {figure(said[places].max())}", str(len(places)), *spread])
    return rows


def _worst(answers: Answers) -> dict[str, Any]:
    """The samples with the highest loss."""
    samples = [_sample(answers, each) for each in answers.worst]
    pictures = [each for each in samples if each["picture"]]
    columns = [name for name, _ in answers.worst[0].values][:COLUMNS] if answers.worst else []
    return {
        "samples": samples,
        "pictures": bool(pictures),
        "columns": columns,
        "left_out": len(answers.worst[0].values) - len(columns) if answers.worst else 0,
        "prepared": any(each.prepared for each in answers.worst),
        "guess": answers.task != "regress",
    }


def _sample(answers: Answers, sample: Sample) -> dict[str, Any]:
    truth, predicted, probability = _told(answers, sample.place)
    picture = base64.b64encode(sample.picture).decode() if sample.picture else ""
    return {
        "name": sample.name,
        "loss": figure(sample.loss),
        "truth": truth,
        "predicted": predicted,
        "probability": probability,
        "picture": picture,
        "values": [value for _, value in sample.values][:COLUMNS],
        "other": sample.other,
        "wrong": answers.task != "regress" and truth != predicted,
    }


def _told(answers: Answers, place: int) -> tuple[str, str, str]:
    """The truth, what is predicted, and with which probabilities: of the predicted class and of the true one."""
    truth, predicted, said = answers.truth[place], answers.predicted[place], answers.said[place]
    if answers.task == "classify":
        names = answers.columns[0].classes
        chances = f"{share(said[predicted])}" + (f", the true one {share(said[truth])}" if truth != predicted else "")
        return str(names[truth]), str(names[predicted]), chances
    if answers.task == "regress":
        return ", ".join(figure(float(v)) for v in truth), ", ".join(figure(float(v)) for v in predicted), ""
    named = [
        ", ".join(str(c.name) for c, v in zip(answers.columns, values, strict=True) if v) or "none"
        for values in (truth, predicted)
    ]
    wrong = [
        f"{c.name} {share(p)}" for c, p, t, s in zip(answers.columns, said, truth, predicted, strict=True) if t != s
    ]
    return named[0], named[1], ", ".join(wrong)
