"""Helpers for tests of logs: recorders and sinks in memory, event factories, and a program that only logs."""
