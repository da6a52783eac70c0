"""Both passes of a training batch as one compiled graph: what `compile=true` brings to `steps_per_execution`."""

import logging
from contextlib import AbstractContextManager

import torch
from torch import Tensor, _dynamo
from torch._dynamo.exc import Unsupported

from normlab.tasks.execution import Step, backward

log = logging.getLogger(__name__)


class OneGraph:
    """A step that gives the parameters their gradients too.

    step: from a batch's samples and targets the network's output and the loss. Where torch cannot compile it in one
    piece with its backward pass, the two are compiled apart, as with one step in a call, and the log says so. torch
    refuses before anything is computed.
    """

    def __init__(self, step: Step):
        def both(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            output, loss = step(x, target)
            backward(loss)
            return output.detach(), loss.detach()

        self.both = both
        # With fullgraph=False torch 2.15 compiles in pieces, which give no gradients, and no error.
        self.compiled: Step | None = torch.compile(both, fullgraph=True)

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The output and the loss. Call it while `traced` is entered."""
        if self.compiled is not None:
            try:
                return self.compiled(x, target)
            except Unsupported as error:
                log.info(f"forward and backward pass are compiled apart: {str(error).splitlines()[0]}")
                self.compiled = None
        return self.both(x, target)

    def traced(self) -> AbstractContextManager[None]:
        """Lets torch compile backward passes. Entering it takes as long as a tenth of a small network's step."""
        return _dynamo.config.patch(trace_autograd_ops=self.compiled is not None)
