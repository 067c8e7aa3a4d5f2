"""The source tree and the documents as data: modules, imports, regular expressions, functions that parse input."""
