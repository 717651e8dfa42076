"""App: what people register their functions with, and the hosts that run them."""

from durably.app.app import App
from durably.app.host import AppHost

__all__ = ["App", "AppHost"]
