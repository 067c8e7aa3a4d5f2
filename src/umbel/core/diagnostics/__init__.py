"""Exceptions in records and on stderr, without secrets: redactor, record fields, crash console."""
