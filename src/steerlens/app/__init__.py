"""The live explorer: a web page on which a model's parts are steered, decoded and ablated by hand."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.app.explorer import Explorer
    from steerlens.app.policy import Policy
    from steerlens.app.serving import ServerThread, serve, serve_in_thread
    from steerlens.app.view import View

__all__ = ["Explorer", "Policy", "ServerThread", "View", "serve", "serve_in_thread"]

__getattr__, __dir__ = lazy_names(__name__)
