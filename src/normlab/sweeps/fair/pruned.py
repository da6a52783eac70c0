"""Ends bad trials early, by a study of Optuna for each arm: a trial is compared with those of its own arm alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from normlab.config.arms import Arm
from normlab.config.objectives import direction
from normlab.folder.identity import config_hash
from normlab.sweeps.fair.run import Run
from normlab.sweeps.study import distribution, given, hand_over, open_study, trial_of

if TYPE_CHECKING:  # Optuna is an extra
    from optuna.study import Study


class ArmStudy:
    """The study of an arm, `pruning-<hash>.db` in the sweep's folder `path`. pruner: the pruner's keys."""

    def __init__(self, path: Path, arm: Arm, pruner: dict[str, Any]):
        self.path, self.arm, self.pruner = path, arm, pruner
        self.file = f"pruning-{config_hash(arm.config)}.db"

    def begin(self, run: Run) -> None:
        """Tells a trial's job which one it is in the study; one that was interrupted stays what it was."""
        from optuna.trial import TrialState

        study = self._study()
        number = trial_of(self.path / str(run.number), self.file)
        if number is None or study.get_trials(deepcopy=False)[number].state != TrialState.RUNNING:
            study.sampler = given(run.point)
            number = study.ask({key: distribution(values) for key, values in self.arm.space.items()}).number
        hand_over(self.path, run.number, True, number, self.file)

    def end(self, run: Run) -> None:
        """Tells the study what has become of a trial."""
        from optuna.trial import TrialState

        number = trial_of(self.path / str(run.number), self.file)
        assert number is not None
        if run.score is not None:
            self._study().tell(number, run.score)
        else:
            pruned = run.result.get("status") == "pruned"
            self._study().tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def _study(self) -> "Study":
        config = self.arm.config
        study = open_study(self.path, [direction("score", config.score_mode)], self.file)
        study.set_user_attr("objectives", ["score"])
        study.set_user_attr("pruner", self.pruner)
        return study
