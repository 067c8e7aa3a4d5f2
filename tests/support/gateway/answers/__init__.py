"""Recorded answers: requests, the ways to send them to an application, and the answers when they were last recorded.

``recorded.json`` has the answer and the records of each request in ``cases.py``. The command ``python -m
tests.support.gateway.record_answers`` writes it.
"""
