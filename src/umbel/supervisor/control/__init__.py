"""What master, workers and operators say to each other."""
