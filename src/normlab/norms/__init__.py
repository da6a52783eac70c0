"""Normalization options: one file a variant here, one yaml a variant in `conf/norm`."""
