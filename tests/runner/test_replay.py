"""`replay=<run>` repeats a run in a new folder, and says whether its numbers came out the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.folders import assert_same_run, assert_same_weights, result_of, rows_of, state
from helpers.processes import train
from lightning import Callback
from omegaconf import OmegaConf

from normlab import compose, run
from normlab.config.compose import check, check_replay
from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError
from normlab.models.net import Net
from normlab.runner.replayed import compare

TYPED = ["model=net", "data=csv", "data.path=table.csv", "data.target=kind", "logger=none", "trainer.max_epochs=2"]


class Stop(Callback):
    """Ends a run before its second epoch."""

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == 1:
            raise InterruptedError("stopped")


def write_table(rows: int = 40) -> None:
    lines = [f"{(7 * row % 40) / 8},{row % 5},{'dog' if row % 3 else 'cat'}" for row in range(rows)]
    Path("table.csv").write_text("\n".join(["size,age,kind", *lines]) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished run a, and b, which repeats it."""
    folder, before = tmp_path_factory.mktemp("made"), Path.cwd()
    os.chdir(folder)
    try:
        write_table()
        run(compose([*TYPED, "norm=group", "norm.num_groups=2", "name=a", "tags=[first]"]))
        run(compose(["replay=a", "name=b"]))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def test_a_replay_has_the_numbers_of_its_run():
    assert_same_run(Path("outputs/b"), Path("outputs/a"))
    replay = result_of(Path("outputs/b"))["replay"]
    assert replay == {"of": "outputs/a", "same": True, "differences": [], "environment": []}
    log = Path("outputs/b/train.log").read_text()
    assert "replay: the same numbers as outputs/a, bit for bit: score, metrics, metrics.csv, best.ckpt\n" in log
    assert "replay" not in result_of(Path("outputs/a"))


def test_a_job_of_a_sweep_is_replayed_by_its_path_without_what_told_it():
    shutil.copytree("outputs/a", "outputs/sweep/3")
    config = compose(["replay=outputs/sweep/3"])
    assert (config.name, config.norm.num_groups, config.extend) == (None, 2, False)
    assert "name=a" not in config.overrides
    folder = run(config).folder
    assert folder.parent.parent == Path("outputs")
    assert result_of(folder)["replay"]["of"] == "outputs/sweep/3"
    assert result_of(folder)["replay"]["same"] is True
    assert compose(["action=test", f"ckpt={folder}/checkpoints/best.ckpt"]).replay is None
    assert OmegaConf.load(folder / "config.yaml").replay is None


def test_an_interrupted_replay_goes_on_by_its_command():
    with pytest.raises(InterruptedError):
        run(compose(["replay=a", "name=c"]), callbacks=[Stop()])
    assert len(rows_of(Path("outputs/c"))) == 1
    run(compose(["replay=a", "name=c"]))
    assert result_of(Path("outputs/c"))["replay"]["same"] is True
    assert_same_weights(Path("outputs/a"), Path("outputs/c"))


def test_other_numbers_are_told_with_the_largest_difference(monkeypatch):
    forward = Net.forward
    monkeypatch.setattr(Net, "forward", lambda self, x: 1.01 * forward(self, x))
    run(compose(["replay=a", "name=c"]))
    a, c = Path("outputs/a"), Path("outputs/c")
    replay = result_of(c)["replay"]
    assert (replay["same"], replay["environment"]) == (False, [])

    pairs = [result_of(folder)["metrics"] for folder in (a, c)]
    sizes = {name: abs(value - pairs[1][name]) for name, value in pairs[0].items()}
    for one, other in zip(rows_of(a), rows_of(c), strict=True):
        for name in one:
            sizes[name] = max(sizes.get(name, 0), abs(float(one[name]) - float(other[name])))
    weights = [state(folder, "best")["state_dict"] for folder in (a, c)]
    sizes |= {name: (value - weights[1][name]).abs().max().item() for name, value in weights[0].items()}
    told = {line.split(" of ")[0].split(":")[0].removeprefix("score, ") for line in replay["differences"]}
    assert told == {name for name, size in sizes.items() if size}
    (line,) = (line for line in (c / "train.log").read_text().splitlines() if "replay: the numbers are not" in line)
    largest = max(sizes, key=lambda name: sizes[name])
    assert f"those of outputs/a; the largest difference is {largest} of " in line


# What is changed in the folder of the first run, and what a comparison then says.


def edit(name: str, change) -> None:
    file = Path("outputs/a", name)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def other_score():
    edit("result.json", lambda result: result.update(score=0.125))
    return [f"score, val/acc: 0.125 there, {result_of(Path('outputs/b'))['score']:.6g} here"], []


def other_metric():
    edit("result.json", lambda result: result["metrics"].pop("test/acc"))
    return [f"test/acc: none there, {result_of(Path('outputs/b'))['metrics']['test/acc']:.6g} here"], []


def other_row():
    file = Path("outputs/a/metrics.csv")
    header, first, second = file.read_text().splitlines()
    values = second.split(",")
    values[header.split(",").index("train/loss")] = "7.5"
    file.write_text("\n".join([header, first, ",".join(values)]) + "\n")
    return [f"train/loss of epoch 1: 7.5 there, {float(rows_of(Path('outputs/b'))[1]['train/loss']):.6g} here"], []


def fewer_rows():
    file = Path("outputs/a/metrics.csv")
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:-1]))
    return ["rows of metrics.csv: 1 there, 2 here"], []


def other_weight():
    file = Path("outputs/a/checkpoints/best.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    name, weight = next((name, value) for name, value in checkpoint["state_dict"].items() if value.ndim == 2)
    here = weight[1, 1].item()
    weight[0, 0] += 1e-6
    weight[1, 1] = 9
    torch.save(checkpoint, file)
    return [f"{name} of best.ckpt: 9 there, {here:.6g} here"], []


def no_weights():
    Path("outputs/a/checkpoints/best.ckpt").unlink()
    return [], []


def other_environment():
    def change(starts):
        starts[0]["packages"] |= {"torch": "2.11.0", "lightning": "2.0", "aaa": "1"}
        starts[0] |= {"threads": 64, "processor": "A chip", "git": {"commit": "f" * 40, "dirty": False}}

    now = json.loads(Path("outputs/b/environment.json").read_text())[-1]
    edit("environment.json", change)
    commit = str((now["git"] or {}).get("commit"))[:12]
    lines = [
        f"{name} {old} there, {now['packages'][name]} here" for name, old in [("torch", "2.11.0"), ("lightning", "2.0")]
    ]
    lines += [f"git commit {'f' * 12} there, {commit} here", f"threads 64 there, {now['threads']} here"]
    return [], [*lines, f"processor A chip there, {now['processor']} here", "aaa 1 there, not installed here"]


def uncommitted():
    edit("environment.json", lambda starts: starts[0].update(git={"commit": None, "dirty": True}))
    edit_b = Path("outputs/b/environment.json")
    edit_b.write_text(Path("outputs/a/environment.json").read_text())
    Path("outputs/a/changes.diff").write_text("+ a line\n")
    return [], ["what was not committed: see changes.diff there and here"]


def extended():
    file = Path("outputs/a/config.yaml")
    file.write_text(file.read_text().replace("extend: false", "extend: true"))
    return [], ["it was trained on with extend=true, and a replay trains all epochs in one"]


CHANGES = [other_score, other_metric, other_row, fewer_rows, other_weight, no_weights, other_environment, uncommitted]


@pytest.mark.parametrize("change", [*CHANGES, extended], ids=lambda change: change.__name__)
def test_what_differs_is_named(change, caplog):
    numbers, around = change()
    caplog.clear()
    entry = compare(Path("outputs/a"), Path("outputs/b"), result_of(Path("outputs/b")), compose(["replay=a", "name=c"]))
    assert entry == {"of": "outputs/a", "same": not numbers, "differences": numbers, "environment": around}
    assert ("has kept no best.ckpt" in caplog.text) == (change is no_weights)


def test_a_run_that_is_gone_meanwhile_fails_no_replay(caplog):
    shutil.rmtree("outputs/a")
    config = OmegaConf.load("outputs/b/config.yaml")
    entry = compare(Path("outputs/a"), Path("outputs/b"), result_of(Path("outputs/b")), config)
    assert entry["same"] is None
    assert "outputs/a can no longer be compared with" in caplog.text


def test_other_data_is_refused_unless_it_is_typed():
    write_table(44)
    with pytest.raises(
        ConfigError, match=r"^the training data is not what outputs/a was begun on: number of samples 40"
    ):
        run(compose(["replay=a", "name=c"]))
    assert not (Path("outputs/c") / "metrics.csv").exists()
    run(compose(["replay=a", "name=c", "data.changed=ok"]))
    assert result_of(Path("outputs/c"))["replay"]["environment"] == ["the data: number of samples 40 → 44"]


def test_data_that_was_moved_is_the_same_data():
    Path("table.csv").rename("moved.csv")
    with pytest.raises(ConfigError, match=r"data\.path=table\.csv"):
        compose(["replay=a"])
    run(compose(["replay=a", "name=c", "data.path=moved.csv"]))
    replay = result_of(Path("outputs/c"))["replay"]
    assert (replay["same"], replay["environment"]) == (True, ["data.path: table.csv there, moved.csv here"])


def test_what_a_folder_says_of_its_action_makes_no_other_one():
    text("action: fit", "action: test")()
    assert compose(["replay=a"]).action == "fit"


def stopped(status):
    return lambda: edit("result.json", lambda result: result.update(status=status))


def text(old: str, new: str):
    file = Path("outputs/a/config.yaml")
    return lambda: file.write_text(file.read_text().replace(old, new))


def looked_at():
    shutil.copytree("outputs/a", "outputs/a/test", ignore=shutil.ignore_patterns("test"))
    file = Path("outputs/a/test/result.json")
    file.write_text(file.read_text().replace('"fit"', '"test"'))


def swept():
    for number in range(2):
        shutil.copytree("outputs/a", f"outputs/sweep/{number}")


REFUSED = [
    (["replay=nothing"], None, r"^replay=nothing: there is no run in outputs/nothing$"),
    (["replay=missing/place"], None, r"^replay=missing/place: there is no run in outputs/missing/place$"),
    (["replay=outputs/nothing"], None, r"^replay=outputs/nothing: there is no run in outputs/nothing$"),
    (["replay=a/config.yaml"], None, r"outputs/a/config\.yaml is no run; did you mean outputs/a\?$"),
    (["replay=bb"], None, r"^replay=bb: there is no run in outputs/bb; did you mean b\?$"),
    (["replay=7"], None, r"^replay=7: there is no run in outputs/7$"),
    (["replay="], None, r"^replay=: expected the name of a run"),
    (["replay=[a,b]"], None, r"expected the name of a run"),
    (["replay=sweep"], swept, r"outputs/sweep holds several runs; .*replay=outputs/sweep/0$"),
    (["replay=a/test"], looked_at, r"outputs/a/test is what action=test has written; give the run's own folder$"),
    (["replay=a"], stopped("interrupted"), r"only a finished run is repeated, and outputs/a is interrupted$"),
    (["replay=a"], stopped("running"), r"outputs/a is running$"),
    (["replay=a"], lambda: Path("outputs/a/result.json").unlink(), r"outputs/a is without a result$"),
    (
        ["replay=a"],
        lambda: edit("result.json", lambda r: r.update(format=99)),
        r"outputs/a is a run of a later version",
    ),
    (["replay=a"], lambda: Path("outputs/a/config.yaml").write_text(""), r"^outputs/a/config\.yaml is empty"),
    (["replay=a"], lambda: Path("table.csv").unlink(), r"data\.path=table\.csv"),
    (["replay=a"], lambda: text("seed: 0", "seed: ${oc.env:HOME}")(), r"fetches a value from elsewhere"),
    (["replay=a"], lambda: text("normlab.models.net.Net", "pip.main")(), r"model\._target_=pip\.main .*trust=\[pip\]"),
    (["replay=a"], lambda: text("normlab.models.net.Net", "normlab.models.gone.Net")(), r"cannot be imported"),
    (["replay=a", "name=a"], None, r"^name=a is the run that replay=outputs/a repeats: choose another name=$"),
    (["replay=a", "name=b", "action=test"], None, r"^action=test with replay=: a replay trains"),
    (["replay=a", "optimizer.lr=0.5"], None, r"^optimizer\.lr=0\.5 with replay=: .*--config-path outputs/a "),
    (["replay=a", "model=mlp"], None, r"^model=mlp with replay=: that repeats the run as it was"),
    (["replay=a", "+trainer.max_time=1"], None, r"with replay=: that repeats the run as it was"),
    (["replay=a", "~callbacks"], None, r"with replay=: that repeats the run as it was"),
    (["replay=a", "ckpt=best"], None, r"ckpt=best with replay="),
    (["replay=a", "extend=true"], None, r"extend=true with replay="),
]


@pytest.mark.parametrize(("typed", "spoil", "said"), REFUSED)
def test_what_cannot_be_repeated_is_one_line(typed, spoil, said):
    if spoil is not None:
        spoil()
    before = sorted(Path("outputs").rglob("*"))
    with pytest.raises(ConfigError, match=said) as refusal:
        compose(typed)
    assert "\n" not in str(refusal.value)
    assert sorted(Path("outputs").rglob("*")) == before


def test_a_sweep_and_another_way_to_repeat_are_refused():
    for lines in (["replay=a"], ["replay=a,b"]):
        with pytest.raises(ConfigError, match=r"^replay= with -m: one run is repeated at a time"):
            check_sweep(lines)
    with pytest.raises(ConfigError, match=r"^replay=b with --config-path: each repeats a run"):
        check_replay(Path("outputs/a"), ["replay=b"])


def test_a_run_on_data_from_python_is_repeated_with_it_and_refused_on_the_command_line():
    x = torch.arange(80.0).reshape(40, 2).sin()
    data = [(x[part], (x[part, 0] > 0).long()) for part in (slice(20), slice(20, 40))]
    run(compose(["model=net", "logger=none", "trainer.max_epochs=1", "name=own"]), data=data)
    run(compose(["replay=own", "name=again"]), data=data)
    assert result_of(Path("outputs/again"))["replay"]["same"] is True
    with pytest.raises(
        ConfigError, match=r"^replay=own: the data of that run was given from Python.*compose\("
    ) as refusal:
        check(["replay=own"])
    assert "\n" not in str(refusal.value)


def test_a_class_that_was_trusted_and_is_gone_is_one_line():
    text("normlab.models.net.Net", "mine.Net")()
    with pytest.raises(ConfigError, match=r"model\._target_=mine\.Net") as refusal:
        run(compose(["replay=a", "name=c", "trust=[mine]"]))
    assert "\n" not in str(refusal.value)


def test_refusals_come_before_torch():
    lines = [typed for typed, spoil, _ in REFUSED if spoil is None]
    script = (
        "import sys\nfrom normlab import compose\nfrom normlab.errors import ConfigError\n"
        f"for typed in {lines!r}:\n    try:\n        compose(typed)\n    except ConfigError:\n        pass\n"
        "    else:\n        raise AssertionError(typed)\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_replay_on_two_processes_and_by_its_command(tmp_path):
    train("model=net", "data=wine", "logger=none", "trainer=ddp_cpu", "trainer.max_epochs=2", "name=two", cwd=tmp_path)
    done = train("replay=two", "name=again", cwd=tmp_path)
    assert "replay: the same numbers as outputs/two, bit for bit" in done.stdout
    assert result_of(tmp_path / "outputs" / "again")["world_size"] == 2
    refused = train("replay=two", "-m", cwd=tmp_path, check=2)
    assert refused.stderr == "refused: replay= with -m: one run is repeated at a time; leave out -m\n"
