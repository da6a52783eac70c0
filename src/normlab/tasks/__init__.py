"""Tasks: what a network is trained for, chosen by the data (`classify` or `regress`)."""
