"""Seeded fuzzing of the server's input, HTTP/1.1 and HTTP/2: ``make fuzz``; a bounded number runs in ``make test``.

``http1`` and ``http2`` make inputs from the stored corpus, ``run`` sends them and holds the server to its promises.
"""
