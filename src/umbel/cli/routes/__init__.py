"""Explanation of a route: which one matches, its calls and limits, and the rendering of both."""
