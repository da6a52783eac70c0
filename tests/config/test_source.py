"""What stays in memory of the files that configurations are composed of."""

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from normlab.config.source import OURS, forget

CHOICES = {
    "model": ["net", "mynet", "resnet"],
    "norm": ["batch", "ghost", "frn"],
    "data": ["wine", "digits", "fake"],
    "optimizer": ["sgd", "adamw"],
    "callbacks": ["none", "ema", "[agc,recorder]"],
    "experiment": ["fast_cpu", "mnist"],
    "sweep": ["grid", "fair"],
}
some_selections = st.fixed_dictionaries({}, optional={group: st.sampled_from(o) for group, o in CHOICES.items()})


def alter(config: DictConfig) -> None:
    """Changes everything that a composition gave, down to its values, and some of Hydra's own part."""
    with open_dict(config):
        for key in [*config]:
            value = config._get_node(key)
            if key == "hydra":
                config.hydra.job.name = config.hydra.sweep.dir = "left behind"
            elif isinstance(value, DictConfig) and not OmegaConf.is_interpolation(config, key) and value._content:
                alter(value)
            else:
                config[key] = "left behind"


@settings(max_examples=8, deadline=None)
@given(st.lists(some_selections, min_size=2, max_size=4))
def test_what_is_kept_gives_what_hydra_reads_anew(several):
    forget()  # what other tests composed
    for chosen in several:
        lines = tuple(f"{group}={option}" for group, option in chosen.items())
        ours = OURS.compose(lines)
        anew = ConfigLoaderImpl(create_config_search_path(OURS.folder))
        expected = anew.load_configuration(OURS.primary, [*lines], RunMode.RUN, from_shell=False)
        assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(expected)
        alter(ours)


def test_the_options_of_a_folder_may_change(tmp_path):
    file = tmp_path / "norm" / "mine.yaml"
    file.parent.mkdir()
    source = OURS.also([f"file://{tmp_path}"], "hydra.searchpath")
    for size, model in enumerate(["net", "mynet"]):
        file.write_text(f"_target_: normlab.norms.ghost.Ghost\nsize: {size}\n")
        assert source.compose(("norm=mine", f"model={model}")).norm.size == size


def test_a_package_is_read_anew_when_it_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "changing").mkdir()
    (tmp_path / "changing" / "__init__.py").touch()
    file = tmp_path / "changing" / "norm" / "mine.yaml"
    file.parent.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    source = OURS.also(["pkg://changing"], "hydra.searchpath")
    for size, model in enumerate(["net", "mynet"]):
        file.write_text(f"_target_: normlab.norms.ghost.Ghost\nsize: {size}\n")
        forget()
        assert source.compose(("norm=mine", f"model={model}")).norm.size == size
