"""Networks: plain `nn.Module`s, one file each here, one yaml each in `conf/model`."""
