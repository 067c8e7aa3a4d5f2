"""The demo: real sample services on loopback for the sample configuration, so that the main job can be seen at work.

Nothing else of Umbel imports it.
"""
