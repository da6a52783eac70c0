"""What the networks of other libraries share."""
