"""Recorders and sinks in memory, event factories, and a process that only logs."""
