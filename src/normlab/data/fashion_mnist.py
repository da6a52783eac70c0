"""Articles of clothing, in MNIST's format.  python train.py model=resnet data=fashion_mnist"""

from torchvision import datasets

from normlab.data.mnist import Mnist


class FashionMnist(Mnist):
    """70,000 grey 28×28 images of ten kinds of clothing (Xiao et al., 2017, arXiv:1708.07747)."""

    source = datasets.FashionMNIST
