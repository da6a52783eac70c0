"""Small photos of a hundred kinds of things.  python train.py model=resnet data=cifar100"""

from torchvision import datasets

from normlab.data.cifar10 import Cifar10


class Cifar100(Cifar10):
    """60,000 32×32 photos of a hundred classes (Krizhevsky, 2009). `<root>/cifar-100-python/`."""

    source = datasets.CIFAR100
