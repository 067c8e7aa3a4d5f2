"""Limits: how much a client may ask for, by GCRA for each key of a section ``[limits.NAME]``."""
