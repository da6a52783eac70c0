"""Images a second in our trainer beside a bare loop: bfloat16, channels_last, data on the device."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import table
from lightning import Callback, Trainer
from torch.nn import functional as F

import normlab
from normlab.data.fake import Fake
from normlab.runner.build import Context, build
from on_device.measuring import NOT_MEASURED, Place

CASES = {  # network, side of the images, batch
    "mynet": (["model=mynet"], 32, 512),
    "resnet": (["model=resnet"], 32, 512),
    "torchvision's ResNet-18": (["model=torchvision"], 224, 256),
    "torchvision's ResNet-50": (["model=torchvision", "model.name=resnet50"], 224, 256),
}


def tables(place: Place) -> Iterator[str]:
    """A row for each network."""
    rows = []
    for name, (overrides, size, batch) in CASES.items():
        row = [NOT_MEASURED] * 5
        if place.quick:
            size, batch = 8, 4
        if not place.over and not (place.quick and "torchvision" in name):
            loop, loop_peak = measured(place, by_hand, overrides, size, batch)
            ours, our_peak = measured(place, in_trainer, overrides, size, batch)
            row = [f"{loop:.0f}", f"{ours:.0f}", f"{ours / loop:.2f}", loop_peak, our_peak]
        rows.append([name, *row])
    header = ["", "loop, images/s", "ours, images/s", "ours / loop", "loop, peak MiB", "ours, peak MiB"]
    yield "Goal: at least 0.97 of the loop.\n\n" + table(header, rows)


Train = Callable[[Place, Any, Any, int], float]


def measured(place: Place, train: Train, overrides: list[str], size: int, batch: int) -> tuple[float, str]:
    """Images a second from the second epoch on, and the peak of memory."""
    batches, epochs = (2, 2) if place.quick else (20, 3)
    samples = max(100, batch * batches * 8 // 5)  # 65 of 100 are for training
    on_gpu = place.device.type == "cuda"
    data = Fake(size=size, channels=3, samples=samples, batch_size=batch, drop_last=True, on_device=on_gpu)
    settings = [*overrides, "logger=none", "test=false", f"trainer={'gpu' if on_gpu else 'cpu'}", "channels_last=true"]
    settings += [
        "trainer.precision=bf16-mixed",
        f"trainer.max_epochs={epochs}",
        f"trainer.limit_train_batches={batches}",
    ]
    settings += ["trainer.limit_val_batches=1", "scheduler=none"]
    place.begin_peak()
    speed = train(place, normlab.compose(settings), data, epochs) * batch * batches
    return speed, place.peak()


class Clock(Callback):
    """The time of each epoch's training, whose end the device has reached."""

    def __init__(self, place: Place):
        self.place, self.times = place, []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.place.wait()
        self.start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.sanity_checking:
            return
        self.place.wait()
        self.times.append(time.perf_counter() - self.start)


def in_trainer(place: Place, config: Any, data: Fake, epochs: int) -> float:
    """Epochs a second."""
    clock = Clock(place)
    with tempfile.TemporaryDirectory() as folder:
        normlab.run(config, folder, data, callbacks=[clock])
    return 1 / min(clock.times[-epochs + 1 :])


def by_hand(place: Place, config: Any, data: Fake, epochs: int) -> float:
    """The same network, optimizer and batches, in a loop as anyone would write it."""
    with tempfile.TemporaryDirectory() as folder:
        parts = build(config, Path(folder), Context(data))
        x, y = (tensor.to(place.device) for tensor in data.splits["train"])
    network = parts.task.network.to(place.device).train()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(network.parameters(), 0.02, 0.9, weight_decay=5e-3, nesterov=True, fused=True)
    standardise = data.transform()
    times = []
    for _ in range(epochs):
        place.wait()
        start = time.perf_counter()
        order = torch.randperm(len(y), device=place.device)
        for index in order.split(data.batch_size)[: config.trainer.limit_train_batches]:
            optimizer.zero_grad()
            images = standardise(x[index]).to(memory_format=torch.channels_last)
            with torch.autocast(place.device.type, torch.bfloat16):
                loss = F.cross_entropy(network(images), y[index])
            loss.backward()
            optimizer.step()
        place.wait()
        times.append(time.perf_counter() - start)
    return 1 / min(times[1:])
