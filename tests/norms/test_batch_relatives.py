"""batch_fast, split, domain and sync in one process: torch's batch norm of the whole batch or of its parts."""

import copy

import pytest
import torch
from torch import nn

from normlab import run
from normlab.data.common.domains import domain_of
from normlab.norms.batch_fast import BatchFast
from normlab.norms.domain import Domain, set_domain
from normlab.norms.split import Split
from normlab.norms.sync import Sync

SPACES = {0: (), 1: (7,), 2: (5, 6), 3: (3, 4, 5)}
TORCH = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def sample(dims: int, samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 6, *SPACES[dims], dtype=torch.float64, generator=generator) * 3 + seed


def torchs(dims: int, momentum: float | None = 0.1) -> nn.Module:
    layer = TORCH[dims](6, momentum=momentum).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def check_like(layer: nn.Module, reference, x: torch.Tensor, ours: list, theirs: list) -> None:
    """Outputs and the gradients of x and of the parameters agree to 1e-10."""
    x.requires_grad_()
    y, expected = layer(x), reference(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    upstream = torch.randn_like(y)
    got = torch.autograd.grad(y, [x, *ours], upstream)
    wanted = torch.autograd.grad(expected, [x, *theirs], upstream)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def check_state(part: nn.Module, reference: nn.Module) -> None:
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(part.state_dict()[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dims", SPACES)
@pytest.mark.parametrize("option", [BatchFast, Sync])
def test_the_same_as_torchs_batch_norm(option, dims, channels_last, momentum):
    reference = torchs(dims, momentum)
    layer = option(momentum=momentum)(6, dims).double()
    layer.load_state_dict(reference.state_dict())
    for seed in range(3):
        x = sample(dims, 4 + seed, seed)
        if channels_last and dims == 2:
            x = x.to(memory_format=torch.channels_last)
        check_like(layer, reference, x, list(layer.parameters()), list(reference.parameters()))
    check_state(layer, reference)


@pytest.mark.parametrize(("samples", "parts"), [(12, [4, 4, 4]), (14, [4, 4, 6])])
@pytest.mark.parametrize("dims", SPACES)
def test_split_normalises_each_part_by_its_own_batch_norm(dims, samples, parts):
    references = [torchs(dims) for _ in parts]
    layer = Split(splits=3)(6, dims).double()
    layer.load_state_dict(references[0].state_dict(), strict=False)
    for auxiliary, reference in zip(layer.further, references[1:], strict=True):
        auxiliary.load_state_dict(reference.state_dict())
    x = sample(dims, samples)
    separate = lambda x: torch.cat([r(part) for r, part in zip(references, x.split(parts), strict=True)])
    ours = [p for part in layer.sets for p in (part.weight, part.bias)]
    check_like(layer, separate, x, ours, [p for r in references for p in r.parameters()])
    for part, reference in zip(layer.sets, references, strict=True):
        check_state(part, reference)
    torch.testing.assert_close(layer.eval()(x), references[0].eval()(x), rtol=0, atol=1e-10)


def test_a_split_layers_main_part_loads_into_a_batch_norm():
    layer = Split()(6, 2)
    assert nn.BatchNorm2d(6).load_state_dict(layer.state_dict(), strict=False).missing_keys == []


def test_split_names_the_batch_that_is_too_small():
    with pytest.raises(ValueError, match=r"norm.splits=3 .* the 5 samples"):
        Split(splits=3)(6, 2)(sample(2, 5).float())
    with pytest.raises(ValueError, match="splits=1"):
        Split(splits=1)


def test_each_domain_is_a_batch_norm_of_its_own():
    references = [torchs(2), torchs(2)]
    layer = Domain(num_domains=2)(6, 2).double()
    for own, reference in zip(layer.sets, references, strict=True):
        own.load_state_dict(reference.state_dict(), strict=False)
    for step, domain in enumerate([0, 1, 1, 0, 1]):
        set_domain(layer, domain)
        own, reference = layer.sets[domain], references[domain]
        ours = [own.weight, own.bias]
        check_like(layer, reference, sample(2, 5, step), ours, list(reference.parameters()))
    for own, reference in zip(layer.sets, references, strict=True):
        check_state(own, reference)
        reference.eval()
    x = sample(2, 5)
    for domain in (0, 1):
        set_domain(layer, domain)
        torch.testing.assert_close(layer.eval()(x), references[domain](x), rtol=0, atol=1e-10)


class Domains(torch.utils.data.Dataset):
    """Samples of domain d have mean 10 d; batches of eight are of one domain."""

    def __getitem__(self, index):
        domain = index // 8 % 2
        return torch.randn(4) + 10 * domain, index % 2, domain

    def __len__(self):
        return 32


class OneDomainABatch(torch.utils.data.Sampler):
    def __iter__(self):
        return iter([list(range(start, start + 8)) for start in (0, 16, 8, 24)])

    def __len__(self):
        return 4


@pytest.mark.parametrize("steps", [1, 2])
def test_a_batch_tells_the_task_its_domain(steps, tmp_path):
    import lightning

    from normlab import compose

    class Data(lightning.LightningDataModule):
        task, input_shape, out_features = "classify", (4,), 2

        def train_dataloader(self):
            return torch.utils.data.DataLoader(Domains(), batch_sampler=OneDomainABatch())

        val_dataloader = test_dataloader = train_dataloader

    overrides = ["trainer=debug", "logger=none", "model=net", "norm=domain", "norm.momentum=null", "doctor=true"]
    limits = ["trainer.limit_train_batches=4", "trainer.limit_val_batches=4"]
    config = compose([*overrides, *limits, f"steps_per_execution={steps}"])
    run(config, folder=tmp_path / "run", data=Data())
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    counters = (f"network.bn1.{place}num_batches_tracked" for place in ("", "further.0."))
    assert [state[counter].item() for counter in counters] == [2, 2]
    assert "the doctor takes batches" not in (tmp_path / "run" / "train.log").read_text()


def test_a_domain_that_is_not_there_is_named(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 6, 1), Domain(num_domains=2)(6, 2))
    with pytest.raises(ValueError, match=r"domain 2 of a batch: 1 has 2; set norm.num_domains"):
        set_domain(network, 2)


def test_a_batch_is_of_one_domain():
    assert domain_of(3) == domain_of(torch.tensor([3, 3])) == domain_of(torch.tensor(3)) == 3
    with pytest.raises(ValueError, match=r"a batch holds samples of domains \[0, 2\]: take each batch from one domain"):
        domain_of(torch.tensor([0, 2, 0]))


def test_batch_fast_keeps_the_statistics_of_a_constant_channel():
    layer, reference = BatchFast()(6, 2), nn.BatchNorm2d(6)
    x = torch.full((4, 6, 5, 5), 3.0)
    reference(x)
    assert torch.equal(layer(x), torch.zeros_like(x))  # torch's own is off by a rounding of 3 / √ε
    check_state(layer, reference)


def test_copies_keep_their_domain():
    layer = Domain()(6, 2)
    set_domain(layer, 1)
    assert copy.deepcopy(layer).domain == 1
