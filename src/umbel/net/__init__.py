"""Bytes, time and exceptions on trio: the socket reader, the streams on it, the timer queue. Knows no HTTP."""
