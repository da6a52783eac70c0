"""Whether a command may go on in a run folder, and what of an earlier run it may replace."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from normlab.distributed import world
from normlab.errors import ConfigError, show
from normlab.folder.files import check_files, holds_run, read_config, read_result
from normlab.folder.identity import LENGTH, config_hash, numbers
from normlab.folder.keep import check_kept
from normlab.folder.place import shown
from normlab.folder.writing import remove

# What a run leaves that was refused or has not started yet; the next run may take its place.
UNTRAINED = {"lr_find", "stats", "result.json", "train.log", ".lock", ".owner", "checkpoints", "trial.json"}
UNTRAINED |= {"fingerprint.json"}


def check_fit(path: Path, config: DictConfig, data_follows: bool = False) -> None:
    """Raises ConfigError where `path` holds anything but an earlier part of this run, or holds a damaged file.

    data_follows: whether data may still be given from Python in place of the configured one.
    """
    check_files(path)
    entries = {entry.name for entry in path.iterdir() if entry.suffix != ".part"} if path.exists() else set()
    if entries <= UNTRAINED:
        return
    if not holds_run(path):
        raise ConfigError(f"{shown(path)} exists and holds no run; choose another name=")
    if not has_trained(path):
        return
    saved, wanted = numbers(read_config(path)), numbers(config)
    if data_follows:
        saved, wanted = ({k: v for k, v in all_.items() if not k.startswith("data.")} for all_ in (saved, wanted))
    lines = differences(saved, wanted)
    fewer = isinstance(saved[LENGTH], int) and saved[LENGTH] < wanted[LENGTH]
    longer = fewer and not differences(saved | {LENGTH: wanted[LENGTH]}, wanted)
    if lines and not (longer and config.extend):
        remedy = "extend=true trains on" if longer else "to train this one, choose another name="
        raise ConfigError("\n".join([f"{shown(path)} holds another run; {remedy}", *lines]))
    status = read_result(path).get("status")
    if config.extend and (status == "pruned" or (status == "finished" and lines)):
        check_kept(path / "checkpoints" / "best.ckpt", read_config(path).keep, "extend=true")


def has_trained(path: Path) -> bool:
    """Whether the run in a folder has saved anything; otherwise another run may replace it."""
    table = path / "metrics.csv"
    rows = len(table.read_bytes().splitlines()) if table.is_file() else 0
    return rows > 1 or any((path / "checkpoints").glob("*.ckpt"))


def clear_untrained(path: Path, config: DictConfig) -> None:
    """Removes the files, but not the logs, of another run in `path` that never ended an epoch."""
    if not (path / "config.yaml").is_file() or has_trained(path) or numbers(read_config(path)) == numbers(config):
        return
    data = ("data.json", "table.json", "fingerprint.json")
    for name in ("config.yaml", *data, "environment.json", "metrics.csv", "result.json"):
        remove(path / name)


def differences(saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The keys that differ, a line each, as a refusal shows them."""
    differing = [key for key in sorted(saved | wanted) if saved.get(key) != wanted.get(key)]
    return [f"  {key}: {show(saved.get(key))} there, {show(wanted.get(key))} here" for key in differing]


def finished(path: Path, config: DictConfig) -> dict[str, Any] | None:
    """The result of a fit that has finished in `path` with this configuration; None where there is something to do.

    A pruned run of a search counts as finished, unless `extend` asks to train it to its end.
    """
    result = read_result(path)
    over = ("finished",) if config.extend else ("finished", "pruned")
    return result if result.get("status") in over and result["config_hash"] == config_hash(config) else None


def tell_finished(path: Path, result: dict[str, Any]) -> None:
    """Says that a finished run is left alone; only the first of several processes says it."""
    if not world.is_first():
        return
    score = "" if result["score"] is None else f": {result['score_name']} {result['score']:.4g}"
    if share := result.get("majority", {}).get("val"):
        score += f" (always one class: acc {share:.4g})"
    if result["status"] == "pruned":
        print(f"{shown(path)} was pruned after {result['epochs']} epochs{score}. To train it to its end: extend=true")
    else:
        print(f"{shown(path)} is finished{score}. To train on: extend=true with more trainer.max_epochs")


def check_result(path: Path, action: str, of: str | None) -> None:
    """Raises ConfigError where an action that looks at a run would write over something else.

    of: the new samples that it reads; None for the test part.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return
    there = read_result(path)
    if not there:
        own = {*UNTRAINED, f"{action}.json"}  # doctor.json is there before action=doctor where doctor=true wrote it
        inside = [entry.name for entry in path.iterdir() if entry.name not in own and not entry.is_dir()]
        if inside:
            raise ConfigError(f"{shown(path)} exists and holds no result of action={action}; choose another out=")
        return
    if there.get("action") != action:
        raise ConfigError(f"{shown(path)} holds the result of action={there.get('action')}; choose another out=")
    if action == "test" and there.get("input") != of:
        raise ConfigError(
            f"{shown(path)} holds the score of {there.get('input') or 'the test part'}; out=<another folder> keeps both"
        )


def check_action(path: Path, action: str) -> None:
    """Raises ConfigError where `path` holds no run to look at."""
    if not holds_run(path):
        raise ConfigError(f"action={action}: there is no run in {shown(path)}")


def seconds(path: Path, result: dict[str, Any]) -> float:
    """How long the earlier starts of a fit took, in seconds; a killed start counts up to its last checkpoint."""
    before = result.get("seconds") or 0.0
    newest = [path / "checkpoints" / f"{which}.ckpt" for which in ("within_epoch", "last")]
    saved = [file.stat().st_mtime for file in newest if file.is_file()]
    if result.get("status") == "running" and saved:
        before += max(0.0, max(saved) - (path / "result.json").stat().st_mtime)
    return before
