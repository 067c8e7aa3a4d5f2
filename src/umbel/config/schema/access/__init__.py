"""The sections about who may make requests, and how many."""
