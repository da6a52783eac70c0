"""The standard sets of images, as torchvision knows and downloads them."""

import io
import logging
from abc import abstractmethod
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock
from torch import Tensor

from normlab.data.common.batches import Source
from normlab.data.images.base import Images
from normlab.errors import ConfigError

log = logging.getLogger(__name__)


class Standard(Images):
    """A set of torchvision's under the folder `root`, with a test part of its own; downloaded where it is missing.

    Where the files are there, the network is not used. Raises ConfigError where they cannot be downloaded or read.
    """

    source: ClassVar[Any]  # torchvision's class

    def __init__(self, root: str, **images: Any):
        super().__init__(**images)
        self.root = Path(root)

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that must be there."""

    @abstractmethod
    def part(self, train: bool) -> tuple[Tensor, Tensor, list[str]]:
        """Images uint8 (N, C, H, W), classes (N,) int64 and the names of these."""

    @abstractmethod
    def download(self) -> None:
        """Has torchvision download and unpack all files."""

    def prepare_data(self) -> None:
        if not self._missing():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".download.lock"):  # one process downloads, and the others wait for it
                if self._missing():  # no other process has downloaded it meanwhile
                    log.info(f"downloading {self.source.__name__} into {self.root}")
                    with (
                        redirect_stdout(io.StringIO()),
                        redirect_stderr(io.StringIO()),
                    ):  # drops the progress bar, which prints line after line
                        self.download()
        except (OSError, RuntimeError) as error:
            missing = ", ".join(str(file.relative_to(self.root)) for file in self._missing())
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
            raise ConfigError(
                f"data.root={self.root}: there is no {missing}, and the download failed ({reason}); put the files "
                "there, or set data.root= to where they lie"
            ) from error

    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        loaded = {}
        for name in ("train", "test"):
            try:
                x, y, self.class_names = self.part(train=name == "train")
            except (OSError, RuntimeError, ValueError, EOFError) as error:
                folder = self.files()[0].parent
                raise ConfigError(
                    f"data.root={self.root}: {folder} is damaged ({str(error).splitlines()[0]}): remove it"
                ) from error
            loaded[name] = x, y
        self.out_features = len(self.class_names)
        return self.in_shape(loaded)

    def _missing(self) -> list[Path]:
        return [file for file in self.files() if not file.is_file()]


def to_images(pixels: Any) -> Tensor:
    """torchvision's arrays (N, H, W, C) as images."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
