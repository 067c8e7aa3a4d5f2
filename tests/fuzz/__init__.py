"""Seeded fuzzing of the server over HTTP/1.1 and HTTP/2: ``make fuzz``; ``make test`` runs a fixed number of inputs.

- ``corpus`` reads and writes the stored inputs.
- ``http1`` and ``http2`` mutate stored inputs; ``adversarial`` makes requests that are expensive to parse.
- ``run`` sends inputs to a server process and checks its invariants.
- ``drip`` sends inputs byte by byte to a server in the same process, on a virtual clock.
"""
