"""The source tree and the docs as data: modules, imports, regular expressions, readers of input."""
