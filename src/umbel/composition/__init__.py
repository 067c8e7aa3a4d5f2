"""Composition: the calls of one request run under one deadline and give one answer."""
