"""The request of a call: target, header fields, body, and the options of calls made in code."""
