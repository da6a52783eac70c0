"""What the norms share."""
