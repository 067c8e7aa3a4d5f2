"""Bytes and time on trio: the socket reader, the streams on it, and the timer queue. Knows no HTTP."""
