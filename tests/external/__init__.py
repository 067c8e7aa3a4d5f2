"""Tests with third-party programs, one folder for each: ``make external``, and the last part of ``make test-all``.

``tools/external.py`` lists the requirements of each folder, installs them if it can, and limits the time of its tests.
"""
