"""The master process: slots, signals, settings, and the worker processes as the master sees them."""
