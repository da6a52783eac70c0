""" "Make it yours" in docs/adding-parts.md: its two commands give a project of another name that trains."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import torch
from conftest import pytest_configure
from helpers.cases import ROOT


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(init.parent.relative_to(ROOT / "src").parts) for init in ROOT.glob("src/**/__init__.py")}
    assert set(listed) == there | {"normlab.conf"}


@pytest.mark.parametrize(
    ("expression", "seen"), [("not slow and not slurm and not gpu", ""), ("slow", ""), ("", ""), ("gpu", "0")]
)
def test_pytest_m_gpu_alone_sees_gpus(expression, seen, monkeypatch, pytestconfig):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(pytestconfig.option, "markexpr", expression)
    pytest_configure(pytestconfig)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_this_suite_and_processes_that_it_starts_see_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert torch.cuda.device_count() == 0


@pytest.mark.parametrize(
    "file", [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("scripts/*.py")], ids=lambda file: file.name
)
def test_what_scripts_and_benchmarks_take_from_the_package_is_there(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("normlab"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")


@pytest.mark.slow
def test_a_renamed_copy_trains(tmp_path):
    copy = tmp_path / "mylab"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    section = (ROOT / "docs" / "adding-parts.md").read_text().split("## Make it yours")[1]
    commands = re.search(r"```sh\n(.*?)```", section, re.S).group(1)
    assert "mv src/normlab src/mylab" in commands
    subprocess.run(["bash", "-ec", commands], cwd=copy, check=True)
    assert not list((copy / "src").rglob("*normlab*"))

    site = tmp_path / "site"  # an installation beside this one, without its environment
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(copy)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "train.py", "model=net", "data=wine", "trainer=debug", "name=first"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mylab.models.net.Net" in (copy / "outputs" / "first" / "config.yaml").read_text()
