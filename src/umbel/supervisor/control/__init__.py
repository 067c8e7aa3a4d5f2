"""The messages between master and workers, and the control socket of ``umbel ctl``."""
