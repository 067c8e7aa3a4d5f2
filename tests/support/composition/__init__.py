"""Helpers for tests of compositions: plans from TOML, run over scripted calls in memory and over sockets."""
