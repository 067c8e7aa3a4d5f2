"""Names that other modules import while they move to ``asgi.py`` and ``core.inbound``."""

from ..core.inbound import ClientGoneError as ClientLeft
from .asgi import ASGI, CANCELS, Canceller

__all__ = ["ASGI", "CANCELS", "Canceller", "ClientLeft"]
