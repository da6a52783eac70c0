"""Run folders that were never trained, and the page that is made of them."""

import csv
import json
from copy import deepcopy
from functools import cache
from html.parser import HTMLParser

from omegaconf import OmegaConf

from normlab import compose
from normlab.folder.writing import write_config

SCORES = {"batch": [0.90, 0.80, 0.85], "group": [0.70, 0.61, 0.66], "none": [0.92, 0.70, 0.88]}


@cache
def _composed(*typed):
    """A configuration, composed once for all the seeds of many runs."""
    return compose(list(typed))


def make_run(path, *typed, score=0.9, curve=None, config=(), **changes):
    """A run folder with these overrides; `changes` go into result.json, and `config` into config.yaml besides."""
    path.mkdir(parents=True)
    seed = next((int(line.removeprefix("seed=")) for line in typed if line.startswith("seed=")), 0)
    composed = deepcopy(_composed(*(line for line in typed if not line.startswith(("name=", "seed=")))))
    composed.seed = seed
    composed.overrides = list(typed)
    for key, value in dict(config).items():
        OmegaConf.update(composed, key, value, force_add=True)
    write_config(path, composed)
    values = [score / 2, score] if curve is None and score is not None else curve or []
    (path / "metrics.csv").write_text("epoch,val/acc\n" + "".join(f"{n},{v!r}\n" for n, v in enumerate(values)))
    result = {"format": 1, "action": "fit", "status": "finished", "score": score, "score_name": "val/acc"}
    result |= {"score_mode": "max", "metrics": {"test/acc": 0.5}, "seconds": 2.0, "parameters": 383, "error": None}
    (path / "result.json").write_text(json.dumps(result | {"overrides": list(typed)} | changes))
    return path


def make_sweep(path, scores=SCORES, *typed, **changes):
    for norm, values in scores.items():
        for seed, score in enumerate(values, 1):
            number = len(list(path.glob("*"))) if path.exists() else 0
            make_run(
                path / str(number),
                "model=net",
                "data=wine",
                f"norm={norm}",
                f"seed={seed}",
                *typed,
                score=score,
                **changes,
            )
    return path


def rows(folder):
    return list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))


def page_text(folder):
    """What a reader of the page sees of it, tables included; its script is not text."""

    class Text(HTMLParser):
        words: list[str] = []  # noqa: RUF012
        inside: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.inside = [*self.inside, tag] if tag in ("script", "style") else self.inside

        def handle_endtag(self, tag):
            self.inside = self.inside[:-1] if tag in ("script", "style") else self.inside

        def handle_data(self, data):
            if not self.inside:
                self.words = [*self.words, *data.split()]

    parser = Text()
    parser.feed((folder / "report.html").read_text())
    return " ".join(parser.words).replace("\N{NO-BREAK SPACE}", " ")
