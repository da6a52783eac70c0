"""`-m experiment=claims/<name>`: a fair sweep of the arms of claims, whose fresh runs are measured at its end."""

from pathlib import Path

from typing_extensions import override

from normlab.config.claims import Laboratory
from normlab.sweeps.claims.record import write_claims
from normlab.sweeps.fair.plan import Plan
from normlab.sweeps.fair.sweeper import FairSweeper
from normlab.sweeps.fair.watch import FairWatch


class ClaimsSweeper(FairSweeper):
    """As `FairSweeper`: each arm is tuned alike, and its best setting is run again on fresh seeds.

    What its arms are was read from the claims' files before: see config/claims.py. Measures that no run takes itself
    are taken of the checkpoints once all runs have ended, in the sweep's own process; the same command takes those that
    are still missing.
    """

    def __init__(self) -> None:
        super().__init__(None)

    @override
    def _run(self, path: Path, plan: Plan, watch: FairWatch) -> None:
        lab, measure = self.loader.fair, self.loader.measure
        assert isinstance(lab, Laboratory)
        assert measure is not None
        write_claims(path, lab, _refused(plan))
        super()._run(path, plan, watch)
        write_claims(path, lab, _refused(plan))  # elsewhere than here, a job tells that it cannot be trained
        wanted = lab.measures()
        runs = {run.number: wanted[arm.arm.name] for arm in plan.arms for run in arm.fresh if run.score is not None}
        measure(path, runs)


def _refused(plan: Plan) -> dict[str, str]:
    return {arm.arm.name: arm.refused for arm in plan.arms if arm.refused is not None}
