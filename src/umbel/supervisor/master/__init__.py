"""The master: slots, signals, settings and the processes of workers."""
