"""Policies: pure decisions about calls. They take the time, facts and a random generator as arguments and do no I/O.

Every ``now`` is a time in seconds of one clock that does not go back.
"""
