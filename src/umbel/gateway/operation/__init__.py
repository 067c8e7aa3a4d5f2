"""What operators and their tools get of an application: its admin side, its figures, and its probes."""
