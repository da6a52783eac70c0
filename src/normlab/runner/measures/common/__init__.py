"""What the measures share."""
