"""The engine: a plan's calls in one nursery under one deadline, and the one answer they make."""
