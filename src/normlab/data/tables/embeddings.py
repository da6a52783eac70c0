"""Categories of a table as vectors that are trained with the network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Embeddings(nn.Module):
    """Replaces the last features of a sample, which count categories, each by a vector that is looked up.

    (N, plain + columns) -> (N, out_features). `sizes` holds the categories of each column, which are counted from 1;
    the vector of 0, a category not seen in training, is zero. A column of n categories gets min(600, 1.6·n^0.56)
    values, rounded: the rule of fastai (Howard & Gugger 2020, arXiv:2002.04688).
    """

    def __init__(self, plain: int, sizes: Sequence[int]):
        super().__init__()
        self.plain = plain
        widths = [min(600, round(1.6 * size**0.56)) for size in sizes]
        pairs = zip(sizes, widths, strict=True)
        self.tables = nn.ModuleList(nn.Embedding(size + 1, width, padding_idx=0) for size, width in pairs)
        self.out_features = plain + sum(widths)

    def forward(self, x: Tensor) -> Tensor:
        numbers, categories = x[:, : self.plain], x[:, self.plain :].long()
        return torch.cat([numbers, *(table(c) for table, c in zip(self.tables, categories.T, strict=True))], dim=1)


class Encoded(nn.Module):
    """A network behind an encoder."""

    def __init__(self, encoder: nn.Module, network: nn.Module):
        super().__init__()
        self.encoder, self.network = encoder, network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.encoder(x))
