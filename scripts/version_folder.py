"""Makes the run folders of a version that later versions are tested on: tests/folder/test_versions.py.

python scripts/version_folder.py tests/folders/v1

Each version of the files has one, made once, before the first release that writes them so.
"""

import json
import platform
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning import Callback

from normlab import compose, run

COMMAND = ["model=net", "data=wine", "logger=none", "trainer.max_epochs=3"]


class Stop(Callback):
    """Ends a run before its last epoch."""

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == 2:
            raise InterruptedError("stopped")


def main(place: Path) -> None:
    """Writes `finished/`, `stopped/` and what came out, as `expected.json`."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        whole = run(compose(COMMAND), folder=folder / "finished")
        with suppress(InterruptedError):
            run(compose(COMMAND), folder=folder / "stopped", callbacks=[Stop()])
        predicted = run(compose(["action=predict", f"ckpt={name}/finished/checkpoints/best.ckpt"]))
        assert predicted.predictions is not None
        for run_folder in (folder / "finished", folder / "stopped"):
            for file in (".lock", "train.log", "changes.diff"):
                (run_folder / file).unlink(missing_ok=True)
            shutil.rmtree(run_folder / "predict", ignore_errors=True)
            config, environment = run_folder / "config.yaml", run_folder / "environment.json"
            config.write_text(config.read_text().replace(name, "outputs"))
            environment.write_text(environment.read_text().replace(platform.platform(), platform.system()))
        place.mkdir(parents=True)
        shutil.copytree(folder, place, dirs_exist_ok=True)
    expected = {
        "command": COMMAND,
        "metrics": whole.metrics,
        "predictions": predicted.predictions.to_dict("list"),
    }
    (place / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
