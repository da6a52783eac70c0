"""How images are found, read and augmented."""
