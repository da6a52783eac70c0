"""The examples of the README and docs/: commands compose, Python runs, and refusals are those that are printed."""

import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.cases import ROOT, rest_slow
from helpers.samples import image_folder
from omegaconf import DictConfig

import normlab
from normlab import app
from normlab.config import sweep
from normlab.config.compose import compose
from normlab.folder.identity import config_hash
from normlab.folder.writing import write_config, write_result
from normlab.runner import run as running

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LONG = (
    "sweeps",
    "statistics",
    "devices",
    "export",
    "speed",
    "fine-tuning",
    "problems",
    "laboratory",
)  # pages whose examples take long
STARTERS = ("torchrun", "sbatch")  # what brings its own processes; what follows the script's name is ours


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of each command of a page that starts train.py, in the order in which they stand there."""
    text = page.read_text()
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`(python train\.py[^`]*)`(?!`)", text)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line[:2] == ["python", "train.py"] or (line[:1] and line[0] in STARTERS)]


def refusals(page: Path) -> list[tuple[str, str]]:
    """Each command of a page that is shown with a refusal, and the refusal."""
    shown = "\n".join(blocks(page, ""))
    return re.findall(r"^\$ python train\.py (.*)\n(refused(?:(?!\$ ).+\n?)+)", shown, re.M)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the pages speak of, where a run writes what later commands look for."""

    def run(config: DictConfig, folder: str) -> running.Result:
        path = Path(folder)
        if config.action == "fit":
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            write_config(path, config)
            ended = {"status": "finished", "score": 0.5, "overrides": [], "config_hash": config_hash(config)}
            write_result(path, {**ended, "score_name": "val/acc"})
            (path / "data.json").write_text("{}")
            for name in ("best", "last"):
                (path / "checkpoints" / f"{name}.ckpt").touch()
        return running.Result(path, 0.5, {}, None)

    def ends(choose):
        return lambda own, space: [list(choose(own, space))[end] for end in (0, -1)]

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(sweep, "jobs", ends(sweep.jobs))  # a page shows sweeps of fifty jobs, which differ in values
    monkeypatch.setattr(sweep, "probes", ends(sweep.probes))
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"x": range(40), "y": ["yes", "no"] * 20})
    rows.to_csv("bank.csv", index=False)
    rows.drop(columns="y").to_csv("new.csv", index=False)
    rows.assign(price=rows["x"] * 2.5, rent=rows["x"] * 0.5).to_csv("houses.csv", index=False)
    image_folder(tmp_path / "photos", images=2)
    image_folder(tmp_path / "new_photos", images=2)
    return tmp_path


def start(words: list[str], monkeypatch) -> int | str | None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # main sets it
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    return end.value.code


def test_the_pages_are_found():
    assert len(PAGES) == 16
    assert all(len(commands(page)) > 2 for page in PAGES if page.stem not in ("norms", "adding-parts", "own-loops"))
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 4
    assert len((ROOT / "README.md").read_text().splitlines()) <= 172


@pytest.mark.parametrize("page", rest_slow(PAGES, lambda case: case[0].stem not in LONG), ids=lambda page: page.stem)
def test_every_command_is_accepted(page, place, monkeypatch, capsys):
    for program, *words in commands(page):
        if program in STARTERS:
            script = next(place for place, word in enumerate(words) if word.startswith(("train.py", "scripts/")))
            compose(words[script + 1 :])
        elif "-m" in words:
            sweep.check_sweep([word for word in words[1:] if word != "-m"])
        else:
            assert start(words[1:], monkeypatch) == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_refusal_is_the_one_that_is_printed(page, place, monkeypatch, capsys):
    start(["name=first"], monkeypatch)
    capsys.readouterr()
    for line, answer in refusals(page):
        assert start(shlex.split(line), monkeypatch) == 2
        assert capsys.readouterr().err.strip() == answer.strip(), line


@pytest.mark.parametrize(
    "page",
    rest_slow((page for page in PAGES if blocks(page, "python")), lambda case: case[0].stem not in LONG),
    ids=lambda page: page.stem,
)
def test_every_block_of_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(normlab, "compose", lambda words: compose([*words, "trainer=debug"]), raising=False)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


def test_every_link_between_the_pages_leads_somewhere():
    for page in PAGES:
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                assert anchor in {re.sub(r"[^\w\s-]", "", h).lower().replace(" ", "-") for h in headings}, anchor
