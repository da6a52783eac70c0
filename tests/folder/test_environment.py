"""environment.json and changes.diff, against pip and git themselves."""

import json
import subprocess
import sys

import pytest

from normlab.folder import environment


@pytest.fixture
def repository(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "--quiet")
    (tmp_path / ".gitignore").write_text("secret\nruns\n")
    for name in ("code.py", "secret"):
        (tmp_path / name).write_text("one\n")
    git("add", "code.py", ".gitignore")
    git("commit", "--quiet", "-m", "first")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    environment._git_state.cache_clear()
    environment._changes.cache_clear()
    yield git
    environment._git_state.cache_clear()
    environment._changes.cache_clear()


def test_what_was_not_committed_can_be_put_back(repository, tmp_path):
    (tmp_path / "code.py").write_text("one\ntwo é\n")
    (tmp_path / "secret").write_text("two\n")
    environment.write_environment(tmp_path / "runs", {"device": "cpu"})
    (start,) = json.loads((tmp_path / "runs" / "environment.json").read_text())
    assert start["git"] == {"commit": repository("rev-parse", "HEAD").strip(), "dirty": True}
    repository("checkout", "code.py")
    repository("apply", "runs/changes.diff")
    assert (tmp_path / "code.py").read_text() == "one\ntwo é\n"
    assert "secret" not in (tmp_path / "runs" / "changes.diff").read_text()


def test_a_clean_tree_has_no_difference(repository, tmp_path):
    environment.write_environment(tmp_path / "runs", {})
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["environment.json"]


def test_a_long_difference_is_cut_and_says_so(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "LONGEST", 100)
    (tmp_path / "code.py").write_text("x" * 1000)
    environment.write_environment(tmp_path / "runs", {})
    text = (tmp_path / "runs" / "changes.diff").read_text()
    assert len(text) < 160
    assert "cut after 100 of" in text.splitlines()[-1]


def test_all_that_is_installed_has_its_version(tmp_path):
    environment.write_environment(tmp_path, {})
    (start,) = json.loads((tmp_path / "environment.json").read_text())
    listed = subprocess.run([sys.executable, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    versions = {each["name"].lower(): each["version"] for each in json.loads(listed.stdout)}
    written = {name.lower(): version for name, version in start["packages"].items()}
    assert versions.keys() <= written.keys()
    assert all(written[name] == versions[name] for name in ("torch", "lightning", "numpy"))
