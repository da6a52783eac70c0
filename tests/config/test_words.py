"""Words of other templates get a hint with ours; tags reach everything that tells of a run."""

import json

import pytest
import yaml

from normlab import compose, run
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash
from normlab.report import facts
from normlab.report.compare import compare
from normlab.report.runs import find_runs

HINTS = {
    "ckpt_path=a.ckpt": "a fit goes on by its name=",
    "train=false": "action=test, validate or predict with name=<run>",
    "logger=many": r"list them: logger=\[tensorboard,csv\]",
    "debug=fdr": "choose trainer=debug",
    "data.num_workers=4": "data=image_folder has data.workers=",
    "trainer.precision=16": "trainer.precision=16-mixed$",
    "trainer.precision=bf16": "trainer.precision=bf16-mixed$",
    "callbacks.early_stopping.patience=3": "choose callbacks=early_stopping, which has it",
    "logger.wandb.project=x": "choose logger=wandb, which has it",
    "lr=0.1": "set optimizer.lr=",
}


@pytest.mark.parametrize("line", HINTS)
def test_a_word_of_another_template_gets_a_hint(line):
    with pytest.raises(ConfigError, match=HINTS[line]):
        compose([line])


def test_what_the_hints_name_is_there():
    for line in ("logger=[tensorboard,csv]", "trainer=debug", "trainer.precision=16-mixed", "data.batch_size=8"):
        compose([line])
    compose(["callbacks=early_stopping", "callbacks.early_stopping.patience=3"])


def test_tags_reach_the_result_the_loggers_and_the_report(tmp_path):
    for name, tags in (("a", "[draft,wide]"), ("b", "[draft]")):
        typed = [
            "model=net",
            "data=wine",
            "trainer=debug",
            "logger=csv",
            f"tags={tags}",
            f"norm={'batch' if name == 'a' else 'group'}",
        ]
        run(compose(typed), folder=tmp_path / name)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["tags"] == ["draft", "wide"]
    hyperparameters = yaml.safe_load((tmp_path / "a" / "csv" / "hparams.yaml").read_text())
    assert hyperparameters == {"tags": "draft, wide"}
    told = dict(facts.facts([tmp_path], compare(find_runs([tmp_path]))))
    assert told["tags"] == "draft, wide (1 of 2)"


def test_tags_are_a_list_and_make_no_other_run():
    with pytest.raises(ConfigError, match=r"tags=draft: expected a list, such as \[a,b\]"):
        compose(["tags=draft"])
    assert config_hash(compose(["tags=[draft]"])) == config_hash(compose([]))
