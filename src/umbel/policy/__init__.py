"""Policies: pure decisions, which take the time and facts as arguments. No clock, no I/O, no randomness of their own.

Every ``now`` is a time in seconds of one clock that does not go back.
"""
