"""From what was typed to a checked configuration, without importing torch."""
