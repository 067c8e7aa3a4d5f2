"""The demo: real sample services on loopback for the sample configuration, so that the main job can be seen at work.

Started by ``umbel demo``, used by the examples and the tests. Nothing else of Umbel imports it.
"""
