"""Tests of ``umbel.gateway.routing``."""
