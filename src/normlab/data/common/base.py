"""The base of every data set: facts, keys, deterministic splits and loaders."""

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor, nn

from normlab.data.common.batches import Augment, Batches, EpochOrder, Mix, Source
from normlab.data.common.fingerprint import Fingerprint, digest, of_training
from normlab.data.common.labels import check_both, check_targets, count_classes
from normlab.data.common.portions import Portion
from normlab.data.common.sent import Sent
from normlab.data.common.splits import Splitter, cut, taken, with_noise
from normlab.data.common.targets import class_names, target_columns
from normlab.errors import ConfigError
from normlab.folder.files import read_facts
from normlab.folder.writing import write_text

FACTS = ("task", "input_shape", "out_features", "class_names")  # plain values
GPU_SHARE = 4  # splits lie on a GPU as long as together they take at most one part in this many of its free memory


class DataModule(LightningDataModule):
    """A data set, split once by `split_seed`; the run's seed decides order and augmentation.

    Subclasses write `load` and state the facts below, in their class or once they have loaded. Parts that a set does
    not come with are cut from its training part: `test_fraction` and `val_fraction` of it, or, as the validation part,
    the `fold`-th of `folds`. `subset` is how much of the training part is used, as a fraction or a number of samples,
    and `label_noise` is the fraction of its labels that are wrong. on_device: whether samples lie on the GPU that
    trains, or are sent to it batch by batch; auto: they lie there as far as a quarter of its free memory reaches. In
    both cases batches are the same bit for bit, since they are changed on the GPU. changed: ok lets a run go on with
    other training data than it was begun on. Raises ConfigError where a part would be empty or lack a class.
    """

    task: Literal["classify", "regress", "multilabel"]
    input_shape: tuple[int, ...]  # the shape of one sample: (C, H, W) or (features,)
    out_features: int  # classes, or columns of the target
    class_names: Sequence[Any] = ()  # "0", "1", … where the set has none; for labels a pair for each column
    target_names: Sequence[str] = ()  # of the columns, where the target has several
    facts: ClassVar[Sequence[str]] = FACTS  # attributes that a run folder keeps
    raw: Tensor | None = None  # the training samples as they are stored, where `load` gives them in another form
    fingerprint: Fingerprint | None = None  # what the training part is told by; None where a subclass cuts it itself

    def __init__(
        self,
        batch_size: int = 64,
        val_fraction: float = 0.15,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        subset: float = 1.0,
        label_noise: float = 0.0,
        drop_last: bool = False,
        on_device: Literal["auto"] | bool = "auto",
        changed: Literal["ok"] | None = None,
    ):
        super().__init__()
        self.batch_size, self.drop_last, self.on_device = batch_size, drop_last, on_device
        self.changed = changed
        self.val_fraction, self.test_fraction, self.split_seed = val_fraction, test_fraction, split_seed
        self.folds, self.fold, self.subset, self.label_noise = folds, fold, subset, label_noise
        self.seed = 0  # the run's seed; build_data sets it, and the next two
        self.rank, self.processes = 0, 1
        self.keeps_raw = False  # whether parts keep their samples as they were before `preprocess`, for action=export
        self.unprepared: dict[str, Any] = {}
        self.room: int | None = None  # bytes of the GPU that splits may still take; None: nobody has asked yet
        self.splits: dict[str, tuple[Any, Tensor]] = {}
        self.counts: list[Any] | None = None  # of the training part's classes, as a run folder keeps them
        self.sample_names: dict[str, list[str]] = {}  # for each part, where its samples have names

    @abstractmethod
    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        """Samples and targets of the parts that the set comes with: `train`, and `val` and `test` if it has them.

        Samples are (N, *input_shape), or a `Source` of them; targets are (N,) int64 classes, (N, out_features) float32
        numbers, or (N, out_features) int64 labels of 0 and 1. The samples' names, if they have any, go into
        `sample_names`, and those of `train` as they are stored into `raw`, where they were resized or scaled here.
        """

    def digests(self, samples: Any, places: Tensor) -> Fingerprint:
        """What the samples of the training part are told by, as `normlab.data.common.fingerprint` has it.

        samples: as they are stored. places: theirs among all that the part is cut from. A `Source` of a person's own is
        told by nothing unless this is written for it.
        """
        if not isinstance(samples, Tensor):
            return {}
        return {"shape": list(samples.shape[1:]), "values": digest(samples)}

    def preprocess(self, train: Any) -> Callable[[Any], Any]:
        """A function, fitted on the training part's samples, that is applied once to the samples of every part."""
        return lambda x: x

    def transform(self) -> Callable[[Tensor], Tensor] | None:
        """A function that is applied to every batch of every part."""
        return None

    def entry(self) -> Callable[[Tensor], Tensor]:
        """What is done to raw samples before the network, in arithmetic of tensors, for a file that has it inside."""
        prepare, transform = self.prepare, self.transform()
        return prepare if transform is None else lambda x: transform(prepare(x))

    def raw_samples(self, part: str, places: Tensor) -> Tensor:
        """The samples at these places of a part as `entry` takes them, where `keeps_raw` was set before `setup`."""
        raw = self.unprepared[part]
        return raw[places] if isinstance(raw, Tensor) else next(iter(raw.batches([places])))

    def entry_facts(self) -> dict[str, Any]:
        """`entry` in plain values; here, of one that multiplies and shifts: numbers, by channel or by feature."""
        with torch.no_grad():
            shift, other = (self.entry()(torch.full((1, *self.input_shape), value))[0] for value in (0.0, 1.0))
        scale, shift = ((values.flatten(1)[:, 0] if values.ndim > 1 else values) for values in (other - shift, shift))
        return {"formula": "scale * x + shift", "scale": scale.tolist(), "shift": shift.tolist()}

    def raw_facts(self) -> dict[str, Any]:
        """What a raw sample is, in plain values, for whoever makes one without normlab."""
        return {"samples": "as the data set has them"}

    def augmentation(self) -> Augment | None:
        """A function that changes training batches before `transform`."""
        return None

    def mixing(self) -> Mix | None:
        """A function that mixes training batches after `transform`."""
        return None

    def encoder(self) -> nn.Module | None:
        """A module in front of the network, trained with it, that turns samples into `out_features` features."""
        return None

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        loaded = self.load()
        for name, (_, y) in loaded.items():
            check_targets(y, self.task, self.out_features, f"{name} part")
        fractions = self.val_fraction, self.test_fraction
        splitter = Splitter(*fractions, self.split_seed, self.folds, self.fold, class_names(self))
        places = cut(loaded["train"][1], splitter, self.subset, [name for name in loaded if name != "train"])
        parts = taken(loaded["train"], places) | {name: pair for name, pair in loaded.items() if name != "train"}
        stored = parts["train"][0] if self.raw is None else self.raw[places["train"]]
        told = of_training(self, loaded["train"][1], places["train"])
        self.fingerprint = told | self.digests(stored, places["train"])
        self.raw = None
        if names := self.sample_names.get("train"):
            self.sample_names |= {part: [names[place] for place in index.tolist()] for part, index in places.items()}
        if self.label_noise:
            parts["train"] = parts["train"][0], self._with_noise(parts["train"][1])
        for name, (_, y) in parts.items():
            if self.task == "multilabel":
                check_both(y, target_columns(self), f"{name} part")
            if self.task == "regress" and len(y) < 2:
                raise ConfigError(
                    f"the {name} part has a single sample, and r2 needs two: add some, or cut larger parts"
                )
        transform = self.preprocess(parts["train"][0])
        if self.keeps_raw:
            self.unprepared, self.prepare = {name: x for name, (x, _) in parts.items()}, transform
        self.splits = {name: (transform(x), y) for name, (x, y) in parts.items()}
        if self.on_device is True and not all(isinstance(x, Tensor) for x, _ in self.splits.values()):
            raise ConfigError(
                "data.on_device=true: samples that are read while the network trains lie on no device; set "
                "data.in_memory=true too, or data.on_device=auto"
            )
        if "test" not in self.splits:
            self.test_dataloader = None  # pyright: ignore  # how Lightning is told that there is none

    def target_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (out_features,) of the training part's target.

        Raises ConfigError for a target that has a single value there, or values too near to be told apart.
        """
        std, mean = torch.std_mean(self.splits["train"][1].double(), dim=0, correction=0)
        flat = [of.name for of, deviation in zip(target_columns(self), std, strict=True) if deviation < 1e-15]
        if flat:  # the square of such a deviation is 0 in float32
            which = ", ".join(filter(None, ["the target", *flat]))
            raise ConfigError(f"{which} has a single value in the training part, or differs by less than 1e-15 there")
        return mean.float(), std.float()

    def class_counts(self) -> Tensor:
        """How many samples of each class the training part has, (classes,), or of labels (columns, 2)."""
        if self.counts is not None:
            return torch.tensor(self.counts)
        return count_classes(self.splits["train"][1], self.out_features)

    def save(self, folder: Path) -> None:
        """Writes data.json into a run folder, by which `restore` can read new samples without the data set."""
        counts = None if self.task == "regress" else self.class_counts().tolist()
        facts = {key: getattr(self, key) for key in self.facts} | {"class_counts": counts}
        write_text(folder / "data.json", json.dumps(facts, indent=2) + "\n")

    def restore(self, folder: Path) -> None:
        """Takes facts and fitted preprocessing from a run folder, in place of loading the data set.

        Raises DamagedError.
        """
        facts = read_facts(folder / "data.json", (*self.facts, "class_counts"))
        for key in self.facts:
            setattr(self, key, tuple(facts[key]) if isinstance(facts[key], list) else facts[key])
        self.counts = facts["class_counts"]

    def read_input(self, path: Path) -> tuple[Tensor | Source, list[str]]:
        """New samples from a file or folder, in the form that `splits` has, and the name of each.

        A set that reads larger files than memory, or labelled ones, writes `read_new` instead. Raises ConfigError where
        they cannot be read.
        """
        raise ConfigError(f"input={path}: {type(self).__name__} reads no files; without input= its test part is taken")

    def read_new(self, path: Path, labelled: bool = False) -> Iterator[Portion]:
        """As `read_input`, a portion at a time, and with their targets where they are `labelled`.

        Raises ConfigError where they cannot be read, and for targets that the run does not know.
        """
        x, names = self.read_input(path)
        if labelled:
            raise ConfigError(f"input={path}: {type(self).__name__} reads no labelled files; action=predict reads it")
        yield Portion(x, names)

    def take_new(self, given: Any) -> Portion:
        """New samples from Python, an array or what else the data set is made of, in the units of its files.

        Raises ConfigError where they cannot be taken.
        """
        raise ConfigError(f"{type(self).__name__} takes no arrays: give the path of a file that it reads")

    @property
    def values_in(self) -> int:
        """How many values a sample has that `take_new` takes as a row."""
        return math.prod(self.input_shape)

    def kept(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """The columns that predictions of the test part carry, with a value a sample. names: those of the samples."""
        return {}

    def train_dataloader(self) -> Batches:
        order = EpochOrder(len(self.splits["train"][1]), self.seed)
        changes = {"augment": self.augmentation(), "mix": self.mixing()}
        return self._batches("train", sampler=order, drop_last=self.drop_last, **changes)

    def val_dataloader(self) -> Batches:
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        return self._batches("test")

    def _batches(self, split: str, **options: Any) -> Batches:
        x, y = self._placed(split)
        options |= {"transform": self.transform(), "rank": self.rank, "processes": self.processes}
        return Batches(x, y, self.batch_size, **options)

    def _placed(self, split: str) -> tuple[Any, Tensor]:
        """A split, moved to the GPU that trains if there is room, so that no batch has to be copied there.

        Its targets always lie there, and so do the places by which batches are changed.
        """
        x, y = self.splits[split]
        device = self._device()
        if device.type != "cuda":
            return x, y
        if not isinstance(x, Tensor) or x.device == device:
            return x, y.to(device)
        if not self._has_room(x.nbytes, device):
            return Sent(x, device), y.to(device)
        self.splits[split] = x.to(device), y.to(device)
        return self.splits[split]

    def _has_room(self, size: int, device: torch.device) -> bool:
        """Whether `size` bytes may lie on the GPU; they then count against what is left for the other splits.

        The free memory is asked for once, before anything is moved: gradients and activations, which come later, must
        keep their part of it.
        """
        if isinstance(self.on_device, bool):
            return self.on_device
        if self.room is None:
            self.room = torch.cuda.mem_get_info(device)[0] // GPU_SHARE
        fits = size <= self.room
        self.room -= size if fits else 0
        return fits

    def _device(self) -> torch.device:
        """The device that batches go to."""
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def _with_noise(self, y: Tensor) -> Tensor:
        if self.task != "classify":
            raise ConfigError(
                f"data.label_noise={self.label_noise}: this data has no classes of which a sample has one"
            )
        return with_noise(y, self.label_noise, self.out_features, self.split_seed)
