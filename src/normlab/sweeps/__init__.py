"""`-m`: many jobs of one command, by every combination or by search, on one engine or another, and their progress."""
