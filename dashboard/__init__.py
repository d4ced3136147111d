"""The page: Dash's shell, one delta endpoint, and the scripts that draw what it brings."""

from .app import create_app

__all__ = ["create_app"]
