"""What a network can suffer from: a file for each, with `look`, from the evidence to findings."""
