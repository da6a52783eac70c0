"""What a data set looks like, measured and told."""
