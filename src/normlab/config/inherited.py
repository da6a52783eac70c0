"""What a command takes over from the configuration that a run was made with."""

from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from normlab.config.inputs import ALONE, reads_data
from normlab.config.options import GROUPS, SEVERAL
from normlab.config.overrides import is_hydras, is_selection, parse
from normlab.config.source import ConfigSource
from normlab.config.unread import PARTS
from normlab.errors import ConfigError, show
from normlab.folder.identity import ONCE


def restore(fresh: DictConfig, overrides: Iterable[str], saved: DictConfig) -> DictConfig:
    """A run's saved configuration, changed by the overrides, whose values are those of `fresh`."""
    saved = saved.copy()
    saved.name, saved.ckpt, saved.trust = fresh.name, fresh.ckpt, fresh.trust
    saved.escape, saved.replay = fresh.escape, fresh.replay
    if fresh.replay is not None:  # what belongs to the other folder, and what was done there later
        saved.action = fresh.action
        saved.extend, saved.overrides = False, [line for line in saved.overrides if not _is_of_folder(line)]
    if fresh.action in ALONE or not reads_data(fresh):
        saved.trainer.devices = saved.trainer.num_nodes = 1
    for override in parse(overrides):
        key = override.key_or_group
        if key == "experiment" and override.input_line in saved.overrides:
            continue  # the command that made the run is typed again
        if key == "experiment":
            raise ConfigError(f"experiment={override.value()}: an old run keeps its settings; change single keys")
        if not is_hydras(override):
            OmegaConf.update(saved, key, OmegaConf.select(fresh, key), merge=False, force_add=True)
    if fresh.action == "fit":  # it goes on, and later looks at it inherit what was typed at any time
        saved.overrides = _joined(saved.overrides, overrides)
    return saved


def inherited(saved: DictConfig, parsed: list[Override], source: ConfigSource) -> tuple[list[Override], dict[str, Any]]:
    """The options that a run was made with, but for those typed anew.

    Where one of them is not among the options here, the run's own parts stand in place of all, by their groups.
    """
    typed = {override.key_or_group for override in parsed}
    made_with = [o for o in parse(saved.overrides) if o.key_or_group not in typed and o.key_or_group in GROUPS]
    chosen = [o for o in made_with if is_selection(o) and not o.is_sweep_override()]
    if all(o.is_delete() or {*_listed(o.value())} <= {*source.options(o.key_or_group)} for o in chosen):
        return chosen, {}
    return [], {group: saved[group] for group in (*PARTS, *SEVERAL) if group in saved and group not in typed}


def keep_typed(config: DictConfig) -> None:
    """Keeps the typed keys alone of a part whose `_target_` was typed: the others belong to another class."""
    typed = [override.key_or_group.split(".") for override in parse(config.overrides)]
    for group in [key[0] for key in typed if key[1:] == ["_target_"] and key[0] in GROUPS]:
        keys = ["_partial_", *(key[1] for key in typed if key[0] == group and len(key) > 1)]
        config[group] = {key: value for key, value in config[group].items() if key in keys}


def is_of_sweep(line: str) -> bool:
    """Whether a line says how jobs are chosen or started, and nothing of the job itself."""
    return line.startswith(("sweep=", "fair.")) or is_hydras(parse([line])[0])


def _is_of_folder(line: str) -> bool:
    return parse([line])[0].key_or_group in ("name", "extend", *ONCE)


def _joined(earlier: Iterable[str], later: Iterable[str]) -> list[str]:
    """What was typed at two times, the later value of each key; how jobs are chosen is left out."""
    lines = {o.get_key_element().lstrip("+"): o.input_line for o in parse([*earlier, *later])}
    return [str(line) for line in lines.values() if not is_of_sweep(str(line))]


def _listed(chosen: Any) -> list[str]:
    """The options that were typed for a group, one or a list of them."""
    return [show(option) for option in (chosen if isinstance(chosen, list) else [chosen])]
