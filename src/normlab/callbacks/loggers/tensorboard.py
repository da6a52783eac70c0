"""TensorBoard's events, without those that a run that goes on logs once more.  python train.py logger=tensorboard"""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from normlab.callbacks.loggers.going_on import GoesOn


class TensorBoard(GoesOn, TensorBoardLogger):
    """Lightning's TensorBoardLogger, whose readers drop the events after the step at which a run goes on.

    Each start writes a file of its own. It begins with a mark that says from which step on the events of earlier files
    no longer count, which TensorBoard calls purging.
    """

    @override
    def go_on(self, step: int) -> None:
        if len(list(Path(self.log_dir).glob("events.out.tfevents.*"))) < 2:
            return
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes half a second
        from tensorboard.compat.proto import event_pb2

        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # pyright: ignore[reportAttributeAccessIssue]
        mark = event_pb2.Event(step=step, session_log=start)  # pyright: ignore[reportAttributeAccessIssue]
        self.experiment._get_file_writer().add_event(mark)
        self.experiment.flush()
        events = EventAccumulator(self.log_dir, size_guidance={"scalars": 0}).Reload()  # 0: all of them
        steps = {name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
        self.logged = {name: max(taken) for name, taken in steps.items() if taken}
