"""Every norm, forward and backward, beside BatchNorm2d and the public versions: layouts, precisions, compiled."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from common import table
from norms import SHAPES, layers
from torch import Tensor, nn

from on_device.measuring import Place, ratio, shown

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = {"": torch.contiguous_format, "channels_last": torch.channels_last}
BESIDE = "batch"  # nn.BatchNorm2d


def tables(place: Place) -> Iterator[str]:
    """Time of each layer, eager; then compiled; then how far it is from the CPU's float32."""
    shapes = [(16, 64, 4, 4)] if place.quick else SHAPES
    columns = list(product(shapes, PRECISIONS, LAYOUTS))
    eager = {named(*column): times(place, *column, lambda layer: layer) for column in columns}
    yield "Times of nn.BatchNorm2d in the same layout and precision, eager:\n\n" + compared(eager)
    last = (shapes[0], "bfloat16", "channels_last")
    compiled = {named(*last): times(place, *last, torch.compile, quick_names=2)}
    yield "The same, each compiled; compiled BatchNorm2d is 1:\n\n" + compared(compiled)
    yield "Largest difference of output and gradient from the CPU, float32, relative to the largest value:\n\n" + apart(
        place, shapes[0]
    )


def named(shape: tuple[int, ...], precision: str, layout: str) -> str:
    return f"{shape} {precision} {layout}".strip()


def times(
    place: Place,
    shape: tuple[int, ...],
    precision: str,
    layout: str,
    prepare: Callable[[nn.Module], Callable[[Tensor], Tensor]],
    quick_names: int | None = None,
) -> dict[str, float]:
    """Seconds of a forward and backward pass. quick_names: how many layers are measured in a quick run."""
    x, upstream = (
        torch.randn(shape, device=place.device).to(PRECISIONS[precision], memory_format=LAYOUTS[layout])
        for _ in range(2)
    )
    x.requires_grad_()
    ours = {name: layer.to(place.device) for name, layer in layers(shape[1]).items()}
    if place.quick and quick_names is not None:
        ours = dict(list(ours.items())[:quick_names])
    steps = {name: partial(step, prepare(layer), x, upstream) for name, layer in ours.items()}
    return place.in_turn(steps, *((1, 1) if place.quick else (20, 5)))


def step(layer: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> None:
    """As autocast would have it: a layer with float32 parameters, and activations in 16 bits."""
    x.grad = None
    layer(x).backward(upstream.to(x.dtype))


def compared(columns: dict[str, dict[str, float]]) -> str:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[f"{BESIDE}, ms", *(shown(ms(column.get(BESIDE)), 3) for column in columns.values())]]
    rows += [[name, *(shown(ratio(column, name, BESIDE)) for column in columns.values())] for name in names]
    return table(["", *columns], rows)


def ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def apart(place: Place, shape: tuple[int, ...]) -> str:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, layer in layers(shape[1]).items():
        there, here = passed(layer, x), passed(layer.to(place.device), x.to(place.device))
        differences = [float((a - b.cpu()).abs().max() / a.abs().max()) for a, b in zip(there, here, strict=True)]
        rows.append([name, *(f"{each:.1e}" for each in differences)])
    return table(["", "output", "gradient"], rows)


def passed(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient of a first training batch; the layer's statistics stay."""
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    x = x.clone().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    layer.load_state_dict(state)
    assert x.grad is not None
    return y.detach(), x.grad
