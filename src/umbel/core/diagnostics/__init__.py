"""Exceptions as text without secrets: the redactor, the fields of a record, and the crash console of a process."""
