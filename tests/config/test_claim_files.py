"""The claims of conf/experiment/claims: their arms are runs that a person could type, shared runs are one, refusals."""

import re

import pytest
from helpers.cases import ROOT
from omegaconf import OmegaConf

from normlab import compose
from normlab.config.claims import Laboratory
from normlab.config.sweep import check_sweep
from normlab.errors import ConfigError
from normlab.folder.identity import config_hash

FOLDER = ROOT / "conf" / "experiment" / "claims"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "all")
ORDER = "experiment=claims/order"


def lab(*typed: str) -> Laboratory:
    laboratory = check_sweep(typed).fair
    assert isinstance(laboratory, Laboratory)
    return laboratory


@pytest.mark.slow
def test_all_claims_are_those_of_the_folder_and_their_common_runs_are_run_once():
    whole = lab("experiment=claims/all")
    assert sorted(claim["name"] for claim in whole.claims) == NAMES
    hashes = {(config_hash(arm.config), str(arm.space)) for arm in whole.arms}
    assert len(hashes) == len(whole.arms)
    named = [arm for claim in whole.claims for pair in claim["pairs"] for arm in pair["arms"].values()]
    assert {*named} == {arm.name for arm in whole.arms}
    assert len(named) > 1.2 * len(whole.arms)
    assert all(len(claim["pairs"]) == 2 for claim in whole.claims)


def test_what_stands_beside_published_figures_names_arms_and_effects():
    """The page puts the numbers of an arm or an effect in place of its name in braces."""
    named = 0
    for file in FOLDER.glob("*.yaml"):
        for claim in (OmegaConf.to_container(OmegaConf.load(file)).get("claims") or {}).values():
            for anchor in claim.get("anchors", ()):
                names = re.findall(r"{([^{}]+)}", anchor["ours"])
                assert {*names} <= claim["arms"].keys() | claim["effects"].keys()
                named += bool(names)
    assert named >= 5


def test_an_arm_is_a_run_that_can_be_typed():
    """The fresh run of a claim's arm has the hash of the command line that its file says."""
    order = lab(ORDER, "seed=3")
    arm = next(arm for arm in order.arms if arm.name == "cancer_net: after")
    pair = OmegaConf.load(ROOT / "conf/sweep/claims.yaml").lab.pairs.cancer_net.split()
    typed = compose([*pair, "norm=batch", "model.order=act_norm", "seed=5", "optimizer.lr=0.03"])
    assert order.fresh(arm, {"optimizer.lr": 0.03}, 2).config_hash == config_hash(typed)


def test_an_arm_with_a_rate_of_its_own_is_not_tuned_and_the_others_are():
    assert all(arm.space == {} for arm in lab("experiment=claims/higher_rate").arms)
    assert {str(arm.space["optimizer.lr"]) for arm in lab(ORDER).arms} == {"tag(log,interval(0.003,3.0))"}


def test_the_long_form_takes_all_pairs_and_typed_numbers_win():
    long = lab(ORDER, "lab.form=long")
    assert (len(long.claims[0]["pairs"]), long.seeds) == (4, 10)
    more = lab(ORDER, "fair.trials=3", "fair.seeds=7")
    assert (more.trials, more.seeds) == (3, 7)


REFUSED = [
    (["sweep=claims"], "say which claims, such as -m experiment=claims/all"),
    ([ORDER, "lab.form=middle"], "lab.form=middle: expected short or long"),
    ([ORDER, "fair.seeds=4"], "the rule of the claim order needs 5; set fair.seeds=5 or more"),
    ([ORDER, "fair.over=data.fold"], "fair.over=data.fold: claims rest on equal trials and fresh seeds"),
    ([ORDER, "norm=batch,group"], "norm=batch,group: a claim has its own arms"),
    ([ORDER, "data.batch_size=8"], "data.batch_size=8: data.batch_size is set by the claim"),
    ([ORDER, "test=false"], "test=false: a claim's runs are told apart by seed alone"),
    (["experiment=claims/ordr"], "did you mean claims/order?"),
    ([ORDER, "claims.order.measure=acuracy"], "claims.order.measure=acuracy: expected one of accuracy"),
    ([ORDER, "claims.order.pairs=[digits]"], "claims.order.pairs: lab.pairs has no digits"),
    ([ORDER, "claims.order.margin=0"], "claims.order has no margin"),
    ([ORDER, "+claims.order.effects.odd={before:1}"], "claims.order.effects.odd: its weights add up to 1, not to 0"),
    ([ORDER, "+claims.order.effects.odd={befor:1}"], "claims.order.effects.odd: there is no arm befor"),
    ([ORDER, "+claims.order.why=so"], "claims.order.why: a claim has no such key"),
]


@pytest.mark.parametrize(("typed", "message"), REFUSED)
def test_refused_before_anything_runs(typed, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        check_sweep(typed)


def test_a_claim_is_no_single_run():
    with pytest.raises(ConfigError, match="sweep=claims is started with -m"):
        compose([ORDER])
