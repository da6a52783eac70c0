"""Your own images.  python train.py model=resnet data=image_folder data.path=photos data.size=64"""

from bisect import bisect_left
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from normlab.data.common.batches import Source
from normlab.data.common.fingerprint import Fingerprint, of_files
from normlab.data.images.base import Images
from normlab.data.images.files import check_classes, find_classes
from normlab.data.images.gather import Handling, gather


class ImageFolder(Images):
    """Images in a folder of each class: `<class>/<image>`, or with parts, `train/<class>/<image>` and so on.

    The validation part may be called val, valid or validation; parts that are not there are cut from the training
    part. The images are decoded once into memory where they take a quarter of it at most (`in_memory=auto`), else by
    `workers` processes while the network trains (auto: this process's share of the cores, at most 8). Batches are the
    same bit for bit. A file that cannot be read ends the run, or is left out and named (`corrupt=skip`). Raises
    ConfigError for folders to learn nothing from, and for images of different sizes unless `size` resizes them.
    """

    def __init__(
        self,
        path: str,
        in_memory: bool | Literal["auto"] = "auto",
        workers: int | Literal["auto"] = "auto",
        corrupt: Literal["stop", "skip"] = "stop",
        **images: Any,
    ):
        super().__init__(**images)
        self.path = path
        self.contents: dict[str, list[str]] = {}  # for each part as it is loaded, what its files' contents are told by
        self.how = Handling(in_memory=in_memory, workers=workers, corrupt=corrupt)

    def load(self) -> dict[str, tuple[Tensor | Source, Tensor]]:
        tree = find_classes(Path(self.path))
        check_classes(tree)
        names = [name for files in tree.files.values() for name in files]
        labels = [label for part in tree.labels.values() for label in part]
        images, survey = gather(tree.root, names, self.handling(self.channels))
        readable = survey.readable
        parts: dict[str, tuple[Tensor | Source, Tensor]] = {}
        start = 0
        for part, files in tree.files.items():
            stop = start + len(files)
            first, last = bisect_left(readable, start), bisect_left(readable, stop)
            tree.labels[part] = [labels[place] for place in readable[first:last]]
            self.sample_names[part] = [names[place] for place in readable[first:last]]
            self.contents[part] = survey.digests[first:last]
            parts[part] = images[torch.arange(first, last)], torch.tensor(tree.labels[part])
            start = stop
        check_classes(tree)  # again: a class may have lost all its images
        self.class_names, self.out_features = tree.classes, len(tree.classes)
        self.input_shape = tuple(images.shape[1:])
        return parts

    def digests(self, samples: Any, places: Tensor) -> Fingerprint:
        return of_files(self.sample_names["train"], self.contents["train"], places)
