"""The sample configuration, with its upstreams where the sample services really listen.

The file is package data and is never written to.
"""

from __future__ import annotations

from pathlib import Path

from ..composition.plan import compiler
from ..config.loading.empty_config import SAMPLE
from ..config.loading.load import load
from ..config.schema.sections import Config
from .upstreams import Urls

__all__ = ["SAMPLE", "load_sample"]


def load_sample(urls: Urls, *, logs: Path) -> Config:
    """The sample configuration with the upstreams at ``urls`` and its records in the directory ``logs``.

    Raises:
        ConfigError: a variable of the environment that the file names makes it invalid.
    """
    config = load(SAMPLE, checks=(compiler.check,))
    upstreams = {name: upstream.model_copy(update={"urls": urls[name]}) for name, upstream in config.upstreams.items()}
    return config.model_copy(update={"upstreams": upstreams, "logs": config.logs.model_copy(update={"dir": str(logs)})})
