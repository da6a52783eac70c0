"""A run folder from anybody runs no code: whatever its config.yaml names, wherever that stands."""

import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from helpers.cases import rest_slow
from helpers.processes import train

from normlab import compose, run
from normlab.config.compose import parts
from normlab.config.options import GROUPS, options, read_option
from normlab.config.trust import PLACES
from normlab.errors import ConfigError

TYPED = ["model=net", "data=wine", "logger=tensorboard", "callbacks=early_stopping", "trainer=profile"]
SHORT = ["trainer.max_epochs=1", "name=a"]

# Each writes the file MARK when it is called or imported.
MARK = "it_ran"
CALLBACK = "lightning.pytorch.callbacks.Callback"
HOSTILE = {
    "numpy.testing.runstring": {"astr": f"open('{MARK}', 'w')", "dict": {}},
    "pandas.read_pickle": {"filepath_or_buffer": "evil.pickle"},
    "joblib.load": {"filename": "evil.pickle"},
    "torch.load": {"f": "evil.pickle", "weights_only": False},
    "torch.hub.load": {"repo_or_dir": ".", "model": "evil", "source": "local"},
    "pip.main": {"args": ["install", "./evil_package"]},
    "foreign.Part": {},
    "builtins.exec": {"source": f"open('{MARK}', 'w')"},
    "torch.os.system": {"command": f"touch {MARK}"},
    CALLBACK: {},
    "normlab.app.main": {},
}


class Evil:
    """What a pickle runs."""

    def __reduce__(self):
        return (os.system, (f"touch {MARK}",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    run(compose([*TYPED, *SHORT]))
    os.chdir(before)
    return folder / "outputs" / "a"


@pytest.fixture
def place(tmp_path, monkeypatch, trained):
    """A working folder with the run in it, a hostile module and a hostile pickle beside it."""
    import joblib

    shutil.copytree(trained, tmp_path / "outputs" / "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("foreign.py").write_text(f"open('{MARK}', 'w')\n")
    Path("hubconf.py").write_text(f"open('{MARK}', 'w')\n")
    joblib.dump(Evil(), "evil.pickle")
    yield tmp_path
    sys.modules.pop("foreign", None)


def key_paths(tree, path=()):
    """Every place in a tree of dicts and lists."""
    yield path
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, branch in branches:
        yield from key_paths(branch, (*path, name))


def put(tree, path, value):
    """The tree with a value at a path; at the root it is merged."""
    if not path:
        return tree | value
    tree = tree.copy()
    tree[path[0]] = put(tree[path[0]], path[1:], value) if path[1:] else value
    return tree


def written(config):
    Path("outputs/a/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def saved():
    return yaml.safe_load(Path("outputs/a/config.yaml").read_text())


def hostile_places(config, typed):
    """Every path in the configuration that a folder decides, and the keys of parts, where only the target changes."""
    own = ("hydra", "defaults", *typed)  # Hydra's, which only a replay reads, and what was typed
    places = [path for path in key_paths(config) if not path or path[0] not in own]
    assert len(places) > 80
    beside = ["model", "norm", "data", "optimizer", "scheduler", "trainer", "trainer.profiler", "logger.tensorboard"]
    return places, [(*key.split("."), "_target_") for key in beside]


def assert_refused(config, path, target, action):
    written(put(config, path, target if path[-1:] == ("_target_",) else {"_target_": target, **HOSTILE[target]}))
    with pytest.raises(ConfigError, match=rf"outputs/a/config\.yaml.*({target}|whole one)"):
        run(compose(["replay=a", "name=b"] if action == "replay" else [f"action={action}", "name=a"]))
    assert not Path(MARK).exists()


ACTIONS = ("test", "validate", "predict", "stats", "lr_find", "replay")


@pytest.mark.parametrize("part", [40, pytest.param(1, marks=pytest.mark.endurance)], ids=["a fortieth", "all"])
def test_nothing_that_a_folder_names_is_run_wherever_it_stands(place, part):
    """In each place one of the hostile targets in turn, and beside a part's own keys each of them."""
    config = saved()
    places, beside = hostile_places(config, ("action", "name"))
    turn = zip(itertools.cycle(HOSTILE), itertools.cycle(ACTIONS), strict=False)
    cases = itertools.chain(places, itertools.chain(*[beside] * len(HOSTILE)))
    for path, (target, action) in itertools.islice(zip(cases, turn, strict=False), 0, None, part):
        if (path, target) != (("callbacks", "early_stopping"), CALLBACK):  # there it belongs
            assert_refused(config, path, target, action)


FETCHING = {
    "data.root": "${oc.env:HOME}",
    "model._target_": "${seed}",
    "seed": "x${normlab.folder:x,y,z}",
    "trainer.profiler.filename": r"\${oc.env:HOME}",
}


@pytest.mark.parametrize(
    ("key", "text"),
    rest_slow(itertools.product(FETCHING, FETCHING.values()), lambda case: FETCHING[case[0]] == case[1]),
)
def test_nothing_is_fetched_into_a_folders_configuration(place, key, text):
    config = saved()
    written(put(config, tuple(key.split(".")), text) if key != "data.root" else config | {"new": text})
    for action in ("test", "fit"):
        with pytest.raises(ConfigError, match="fetches a value from elsewhere") as refusal:
            run(compose([*(TYPED if action == "fit" else ()), f"action={action}", "name=a"]))
        assert os.environ["HOME"] not in str(refusal.value)


def test_yaml_tags_make_no_objects(place):
    text = Path("outputs/a/config.yaml").read_text()
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"):
        Path("outputs/a/config.yaml").write_text(text.replace("seed: 0", f"seed: {tag} ['touch {MARK}']"))
        with pytest.raises(ConfigError, match="put a whole one in its place"):
            compose(["action=test", "name=a"])
    assert not Path(MARK).exists()


def test_a_refusal_ends_with_exit_code_2_before_torch_is_there(place):
    written(put(saved(), ("model", "_target_"), "foreign.Part"))
    done = train("action=test", "name=a", cwd=place, check=2)
    assert done.stderr.startswith("refused: outputs/a/config.yaml: model._target_=foreign.Part is neither")
    assert "trust=[foreign], typed or in conf/local/default.yaml, or --config-dir=" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("outputs/a/test").exists()
    code = "import sys, normlab\ntry:\n    normlab.compose(['action=test', 'name=a'])\nexcept ValueError:\n    "
    code += "print('torch' in sys.modules)"
    import subprocess

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"


MINE = """
from normlab.data.wine import Wine
class Mine(Wine):
    pass
"""


def test_what_is_trusted_or_typed_is_run(place):
    Path("foreign.py").write_text(MINE)
    written(put(saved(), ("data", "_target_"), "foreign.Mine"))
    with pytest.raises(ConfigError, match=r"trust=\[foreign\]"):
        compose(["action=test", "name=a", "+data.path=x"])  # that says nothing about the class
    for word in ("trust=[foreign]", "trust=[other,foreign.Mine]", "data._target_=foreign.Mine", "data=wine"):
        run(compose(["action=test", "name=a", word]))
    with pytest.raises(ConfigError, match=r"trust=\[foreign\]"):
        compose(["action=test", "name=a", "trust=[fore]"])
    config = saved()
    written(config | {"trust": ["foreign"]})
    with pytest.raises(ConfigError, match=r"trust=\[foreign\]"):  # the folder's own word counts for nothing
        compose(["action=test", "name=a"])


def test_known_classes_of_libraries_need_no_word(place):
    for key, target in (
        ("optimizer", "torch.optim.RMSprop"),
        ("scheduler", "torch.optim.lr_scheduler.ExponentialLR"),
        ("trainer.profiler", "lightning.pytorch.profilers.AdvancedProfiler"),
        ("callbacks.any", "lightning.pytorch.callbacks.Timer"),
        ("logger.any", "lightning.pytorch.loggers.CSVLogger"),
    ):
        changed = put({"callbacks": {}, "logger": {}, **saved()}, (key.split(".")[0],), saved()[key.split(".")[0]])
        group, _, name = key.partition(".")
        changed[group] = {**changed[group], **({name: {"_target_": target}} if name else {"_target_": target})}
        written(changed)
        compose(["action=test", "name=a"])


def test_every_option_may_stand_in_a_folder():
    """Its `_target_` stands in one of the places, and is of the class that the place expects."""
    from hydra.utils import get_class, get_object

    groups = [group for group in GROUPS if parts(group)]
    assert len(groups) == 9
    for group in groups:
        for key, target in parts(group):
            place = key if key in PLACES else f"{group}.*"
            found = get_object(target)
            if isinstance(found, type):
                assert issubclass(found, get_class(PLACES[place])), (key, target)
            assert target.startswith(("normlab.", "lightning.", "torch."))
    assert all(read_option("norm", name)._target_ for name in options("norm"))


@pytest.mark.parametrize(
    "part", rest_slow(["_target_", "hydra", "defaults", "folder"], lambda case: case == ("_target_",))
)
def test_a_replay_runs_nothing_of_the_folders(place, part):
    run_folder = Path("outputs/a").absolute()
    config = saved()
    hostile = {"_target_": "foreign.Part"}
    if part == "_target_":
        written(put(config, ("model",), hostile))
    if part == "hydra":
        written(put(config, ("hydra",), config["hydra"] | {"callbacks": {"evil": hostile}}))
    if part == "defaults":
        written(put(config, ("defaults",), ["_self_", {"override hydra/job_logging": "evil"}]))
    if part == "folder":
        logging = run_folder / "hydra" / "job_logging"
        logging.mkdir(parents=True)
        handler = {"()": "foreign.Part"}
        (logging / "none.yaml").write_text(yaml.safe_dump({"version": 1, "handlers": {"evil": handler}}))
    command = ["--config-path", str(run_folder), "--config-name", "config", "name=b"]
    done = train(*command, cwd=place, check=2)
    assert done.stderr.startswith("refused: outputs/a")
    assert len(done.stderr.splitlines()) == 1
    assert not Path(MARK).exists()


def test_a_study_runs_no_code(place):
    optuna = pytest.importorskip("optuna")
    from normlab.sweeps.study import hand_over, load_trial, open_study

    study = open_study(place, ["maximize"])
    study.ask()
    hand_over(place, 0, True)
    wrapped = {"_target_": "optuna.pruners.PatientPruner", "patience": 1}
    for pruner in ({"_target_": "foreign.Part"}, wrapped | {"wrapped_pruner": {"_target_": "foreign.Part"}}):
        study.set_user_attr("pruner", pruner)
        with pytest.raises(ConfigError, match="foreign.Part is no pruner of Optuna"):
            load_trial(place / "0")
    assert not Path(MARK).exists()
    for name in ("NopPruner", "MedianPruner"):
        study.set_user_attr("pruner", {"_target_": f"optuna.pruners.{name}"})
        assert type(load_trial(place / "0").study.pruner) is getattr(optuna.pruners, name)
