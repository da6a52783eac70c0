"""`sweep=fair`: each arm is tuned alike, and its best setting is run again on fresh seeds."""
