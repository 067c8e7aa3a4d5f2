"""Recorded answers: requests, the ways to ask an application, and what it answered when that was last recorded.

``recorded.json`` holds what each request of ``cases.py`` got, and ``python -m tests.support.record_answers`` writes it.
"""
