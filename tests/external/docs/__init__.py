"""Tests of the documentation site, which MkDocs builds: ``make external ARGS=docs``."""
