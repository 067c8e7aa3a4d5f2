"""Recorded answers: requests, the ways to ask an application, and what it answered when that was last recorded.

``recorded.json`` holds what each request of ``cases.py`` got; ``python -m tests.support.gateway.record_answers``
writes it.
"""
