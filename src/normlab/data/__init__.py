"""Data modules: one file a data set here, one yaml each in `conf/data`."""
