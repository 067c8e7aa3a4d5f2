"""Tests with other people's programs, a folder for each: ``make external``, and at the end of ``make test-all``.

``tools/external.py`` names what each of them needs, installs it where it can, and limits its time.
"""
