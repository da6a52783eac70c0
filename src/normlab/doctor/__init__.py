"""What is wrong with the normalization of a network, and what would mend it: `normlab.diagnose`."""
