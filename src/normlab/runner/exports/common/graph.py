"""The graph of a trained network from raw samples to answers, which formats write."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from normlab.errors import ConfigError
from normlab.norms.common.declaration import declaration
from normlab.norms.common.fold import fold


class Served(nn.Module):
    """Raw samples (N, …) to answers: what is done to a sample before the network, the network, what makes an answer."""

    def __init__(self, entry: Callable[[Tensor], Tensor], network: nn.Module, answer: Callable[[Tensor], Tensor]):
        super().__init__()
        self.entry, self.network, self.answer = entry, network, answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.network(self.entry(x)))


class Source:
    """What a format writes: the network itself, with its weights, or the program made of it with its norms folded.

    sample: two raw samples.
    """

    def __init__(self, served: Served, sample: Tensor):
        self.served, self.sample, self.network = served, sample, served.network

    @cached_property
    def program(self) -> ExportedProgram:
        """The folded graph, for batches of any size. Raises ConfigError where it cannot be recorded, or writes."""
        with refusing("action=export: the network"), torch.no_grad():
            folded = fold(self.network, self.served.entry(self.sample))
            whole = Served(self.served.entry, folded, self.served.answer).eval()
            program = torch.export.export(whole, (self.sample,), dynamic_shapes=({0: Dim("batch")},))
        check_reads_only(program)
        return program


def check_reads_only(program: ExportedProgram) -> None:
    """Raises ConfigError where a graph writes into its buffers, such as running statistics, or into its samples."""
    signature = program.run_decompositions({}).graph_signature  # before that, a write is any operator in place
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if written:
        raise ConfigError(
            f"action=export: in evaluation the network still writes into {', '.join(written)}; an exported file must "
            "only read: let it write in training alone, `if self.training:`"
        )


def check_evaluates_samples(network: nn.Module) -> None:
    """Raises ConfigError where a norm takes statistics of the batch in evaluation too."""
    for name, module in network.named_modules():
        declared = declaration(module)
        if declared is not None and declared.batch_stats and not declared.running_stats:
            raise ConfigError(
                f"action=export: {name} ({type(module).__name__}) takes statistics of the batch in evaluation too, so "
                "that an answer depends on the samples beside it: train with a norm that has running statistics"
            )


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turns what torch raises while it records or translates a graph into a ConfigError that names the operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice is for who writes exporters
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"{what} cannot be exported: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The operator that stands in the way, if one is named, and the first line of what is wrong."""
    chain = [*_chain(error)]
    told = "\n".join(str(each) for each in chain)
    if "Constraints violated (batch)" in told:
        return "it is for batches of one size alone, as len(x) and x.view(64, -1) make it; x.shape[0] does not"
    named = re.search(r"OpOverload\(op='([\w:.]+)'", told) or re.search(
        r"\b((?:aten\.|prims\.|\w+::)\w+(?:\.\w+)?)", told
    )
    first = next(filter(None, (line.strip() for line in str(chain[-1]).splitlines())), type(error).__name__)
    return f"{named[1]}: {first}" if named and named[1] not in first else first


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
