"""compile=true: how torch's compiler is set up for a network, once for all its parts."""

from torch import nn

COMPILED_VERSIONS = 256  # how many compiled versions of a function one process may keep


def compile_network(network: nn.Module, on_cpu: bool) -> None:
    """Compiles the network, with the code of earlier jobs in this process where that fits."""
    import torch._functorch.config as passes
    import torch._inductor.config as kernels
    from torch import _dynamo  # takes a second

    # By default torch keeps eight versions of a function, and a norm needs three: further jobs would run uncompiled.
    _dynamo.config.recompile_limit = _dynamo.config.accumulated_recompile_limit = COMPILED_VERSIONS
    _dynamo.config.fail_on_recompile_limit_hit = True
    # Where a view of an activation is kept for the backward pass, as of `flatten` before a dense layer, torch keeps a
    # mask of its ReLU besides. Masks are of no use there, and without AVX-512 they take twice the network's time.
    passes.recompute_views = True
    if on_cpu:  # torch's own choice is channels_last for every convolution, which slows down those of few channels
        kernels.layout_optimization = False
    network.compile()
