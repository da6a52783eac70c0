"""The network of airbench against its description, its whitened patches against NumPy, and how it gets its images."""

import numpy as np
import pytest
import torch
from helpers.folders import result_of, state
from helpers.samples import image_folder
from torch import nn
from torch.nn import functional as F

from normlab import compose, run
from normlab.data.common.samples import training_samples
from normlab.data.fake import Fake
from normlab.errors import ConfigError
from normlab.models.airbench import AirBench, whitening_filters
from normlab.norms.batch import Batch
from normlab.norms.none import NoNorm
from normlab.runner.build import Context, build

IMAGE = (3, 32, 32)


def described(network: AirBench, x: torch.Tensor) -> torch.Tensor:
    """The network as airbench94.py has it, in training."""
    w = dict(network.named_parameters())
    x = F.gelu(F.conv2d(x, w["whitening.weight"], w["whitening.bias"]))
    for group in range(3):
        x = F.max_pool2d(F.conv2d(x, w[f"groups.{group}.conv1.weight"], padding="same"), 2)
        x = F.gelu(F.batch_norm(x, None, None, None, w[f"groups.{group}.norm1.bias"], training=True))
        x = F.conv2d(x, w[f"groups.{group}.conv2.weight"], padding="same")
        x = F.gelu(F.batch_norm(x, None, None, None, w[f"groups.{group}.norm2.bias"], training=True))
    return F.max_pool2d(x, 3).flatten(1) @ w["fc.weight"].T / 9


def test_it_is_the_network_of_airbench94():
    torch.manual_seed(0)
    network = AirBench(Batch(), IMAGE, 10, training_samples=torch.randn(20, *IMAGE))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    x = torch.randn(16, *IMAGE)
    torch.testing.assert_close(network(x), described(network, x), rtol=1e-4, atol=1e-5)
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    others = 24 * (12 + 1) + 2 * (2 * 64 + 4 * 256) + 256 * 10  # the first layer, γ and β, fc
    assert sum(parameter.numel() for parameter in network.parameters()) == convolutions + others == 1_972_792
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["whitening.weight"]


def test_convolutions_begin_as_the_identity_of_their_inputs():
    network = AirBench(NoNorm(), IMAGE, 10, width=16)
    x = torch.randn(2, 64, 5, 5)
    for group, inputs in zip(network.groups, (24, 16, 64), strict=True):
        assert torch.equal(group.conv1(x[:, :inputs])[:, :inputs], x[:, : min(inputs, group.conv1.out_channels)])
        assert not torch.equal(group.conv1.weight[-1], torch.zeros_like(group.conv1.weight[-1]))
    assert torch.equal(network.groups[2].conv2(x), x)


def natural(images: int, channels: int = 3, size: int = 12) -> torch.Tensor:
    """Images whose neighbouring pixels, and whose channels, are alike, with a mean that is not 0."""
    noise = torch.randn(images, channels, size, size, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), "reflect"), 3, 1)
    return smooth + smooth.mean(1, keepdim=True) + 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_whitened_as_numpy_has_it(channels):
    images = natural(600, channels)
    filters = whitening_filters(images, eps=5e-4)
    windows = np.lib.stride_tricks.sliding_window_view(images.double().numpy(), (2, 2), axis=(2, 3))
    patches = windows.transpose(1, 4, 5, 0, 2, 3).reshape(4 * channels, -1)  # one a column
    covariance = np.cov(patches, bias=True)
    first, negatives = filters.chunk(2)
    assert torch.equal(first, -negatives)
    rows = first.flatten(1).numpy()
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(rows @ covariance @ rows.T, np.diag(values / (values + 5e-4)), atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1 / np.sqrt(values + 5e-4), rtol=1e-6)


def test_grey_images_in_three_channels_leave_no_channel_constant():
    grey = natural(100, channels=1)
    first, _ = whitening_filters(grey.repeat(1, 3, 1, 1)).chunk(2)
    assert torch.equal(first[4:8], first[:4])
    assert torch.equal(first[8:], first[:4])
    values = F.conv2d(grey.repeat(1, 3, 1, 1).double(), first)
    torch.testing.assert_close(values.var((0, 2, 3)), torch.ones(12).double(), rtol=0.01, atol=0)


def test_constant_images_give_finite_filters():
    assert torch.isfinite(whitening_filters(torch.full((3, 3, 4, 4), 7.0))).all()


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 8, 8), (3, 7, 30), (3, 64, 64)])
def test_images_of_other_sizes_and_channels_are_taken(shape):
    network = AirBench(Batch(), shape, 4, width=8, training_samples=torch.randn(10, *shape))
    assert network.whitening.out_channels == 8 * shape[0]
    assert network(torch.randn(5, *shape)).shape == (5, 4)


def test_images_of_one_pixel_are_refused(quick_run):
    with pytest.raises(ConfigError, match=r"patches of 2×2 pixels, and the images have 1×1: set data.size="):
        quick_run("model=airbench", "data.size=1")


SMALL = ["model=airbench", "model.width=4", "data=fake", "data.size=8", "data.samples=200", "logger=none"]


def images_of(data: Fake) -> torch.Tensor:
    """The training images in the form that a network takes, one by one."""
    x = data.splits["train"][0].double() / 255
    mean, std = (torch.tensor(values)[:, None, None].double() for values in (data.mean, data.std))
    return (x - mean) / std


@pytest.mark.slow
def test_a_run_whitens_its_training_images_and_keeps_the_filters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(compose([*SMALL, "data.crop=2", "data.flip=true", "trainer.max_epochs=2", "name=run"]))
    folder = tmp_path / "outputs" / "run"
    saved = state(folder, "best")["state_dict"]["network.whitening.weight"]
    data = build(compose(SMALL), tmp_path).data
    torch.testing.assert_close(saved, whitening_filters(images_of(data)).float(), rtol=1e-4, atol=1e-4)
    assert not torch.equal(state(folder, "last")["state_dict"]["network.whitening.bias"], torch.zeros(24))
    # Other actions have the filters from the checkpoint: they make none, and may have no training images.
    monkeypatch.setattr("normlab.runner.network.training_samples", lambda data: pytest.fail("asked for"))
    tested = run(compose(["action=test", "name=run"])).metrics
    assert tested == {name: value for name, value in result.metrics.items() if name.startswith("test/")}
    images = image_folder(tmp_path / "new", images=4, size=(8, 8))  # four in each of two classes
    assert len(run(compose(["action=predict", "name=run", f"input={images}"])).predictions) == 8
    run(compose(["action=export", "name=run", "format=torch_export"]))
    run(compose(["action=doctor", "name=run"]))
    assert [result_of(folder / action)["status"] for action in ("export", "doctor")] == 2 * ["finished"]


def test_every_process_begins_with_the_same_weights(tmp_path):
    overrides = [*SMALL, "trainer=ddp_cpu", "name=run"]
    one, other = (build(compose(overrides), tmp_path, Context(rank=rank)).task.state_dict() for rank in (0, 1))
    assert all(torch.equal(values, other[name]) for name, values in one.items())


def test_samples_are_spread_over_the_part_and_draw_no_random_numbers(tmp_path, monkeypatch):
    folder = image_folder(tmp_path / "images", images=40)
    for streamed in ("true", "false"):
        config = compose(["data=image_folder", f"data.path={folder}", f"data.in_memory={streamed}", "model=mynet"])
        data = build(config, tmp_path).data
        before = torch.get_rng_state()
        monkeypatch.setattr("normlab.data.common.samples.VALUES", 5 * 3 * 10 * 12)
        found = training_samples(data)
        assert torch.equal(torch.get_rng_state(), before)
        loader = data.val_dataloader()
        whole = torch.cat([x for x, _ in type(loader)(*data.splits["train"], 8, transform=loader.transform)])
        places = [round(place * (len(whole) - 1) / (len(found) - 1)) for place in range(len(found))]
        assert torch.equal(found, whole[places])
        assert len(found) > 1


def test_own_data_gives_the_first_images_of_its_loader(tmp_path):
    x, y = natural(40, size=8), torch.arange(40) % 2
    result = run(compose([*SMALL[:2], "logger=none", "trainer=debug"]), tmp_path, data=((x, y), (x, y)))
    torch.testing.assert_close(
        result.task.network.whitening.weight.double(), whitening_filters(x), rtol=1e-3, atol=1e-4
    )


def test_tables_that_embed_categories_have_no_samples_to_begin_with(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text("a,b,y\n" + "".join(f"{n % 7},{'uv'[n % 2]},{n % 3}\n" for n in range(60)))
    (tmp_path / "asking.py").write_text(
        "from torch import nn\n\n\ndef network(input_shape, out_features, training_samples):\n"
        "    return nn.Linear(training_samples.shape[1], out_features)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    typed = [f"data.path={tmp_path / 'table.csv'}", "data.target=y", "model._target_=asking.network", "~model.order"]
    common = ["data=csv", *typed, "trainer=debug", "logger=none"]
    assert run(compose([*common, "model=net"]), tmp_path / "onehot").score is not None
    with pytest.raises(ConfigError, match=r"data.categories=embed: asking.network begins with its training samples"):
        run(compose([*common, "model=net", "data.categories=embed"]), tmp_path / "embed")


def test_the_recipe_has_the_papers_schedule_and_step_sizes(tmp_path, monkeypatch):
    """As in airbench94.py: a triangle 0.2 → 1 at 23 % → 0.07, and decoupled rates for 1024 samples."""
    (tmp_path / "cifar10").mkdir()
    monkeypatch.setenv("NORMLAB_DATA_DIR", str(tmp_path))
    config = compose(["experiment=airbench"])
    network = AirBench(Batch(), IMAGE, 10, width=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=config.optimizer.lr, momentum=config.optimizer.momentum)
    keys = {key: value for key, value in config.scheduler.items() if not key.startswith("_")}
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **keys, total_steps=480)
    found = []
    for _ in range(480):
        found.append(optimizer.param_groups[0]["lr"] / config.optimizer.lr)
        optimizer.step()
        schedule.step() if len(found) < 480 else None
    np.testing.assert_allclose(found, np.interp(range(480), [0, 0.23 * 480, 480], [0.2, 1, 0.07]), atol=0.012)
    assert optimizer.param_groups[0]["momentum"] == 0.85
    step = 1 + 1 / (1 - config.optimizer.momentum)  # how far constant gradients of 1 go, in rates
    assert step * config.optimizer.lr * 1024 / config.data.batch_size == pytest.approx(11.5, rel=1e-3)
    assert step * config.optimizer.lr * config.optimizer.weight_decay == pytest.approx(0.0153, rel=1e-2)
