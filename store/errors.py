"""The errors of Otoscope: one tree, each saying what was wrong, what was got and what to do."""

from __future__ import annotations


class OtoscopeError(Exception):
    """Raised when Otoscope cannot do what it was asked; every error of ours derives from it."""


class ConfigError(OtoscopeError, ValueError):
    """Raised when an option, a keyword or a file of settings holds a value that cannot be used."""


class StoreError(OtoscopeError):
    """Raised when the store cannot be read or written."""


class StoreUnavailableError(StoreError):
    """Raised when no server answers at the address; the same call may succeed later."""


class LoginRefusedError(StoreUnavailableError):
    """Raised when the server refuses the user or the password, or asks for one and got none."""


class AccessDeniedError(StoreError):
    """Raised when the server's user lacks a right (ACL)."""


class TlsError(StoreUnavailableError):
    """Raised when TLS cannot be agreed on: a certificate, a name, or a side that speaks none."""


class ServerTooOldError(StoreUnavailableError):
    """Raised when the server is older than 6.2."""


class StoreFullError(StoreError):
    """Raised when the server refuses a write because its memory is full."""


class StoreLostError(StoreUnavailableError):
    """Raised when the server no longer holds what it had acknowledged: flushed, or failed over."""


class ReadOnlyStoreError(StoreUnavailableError):
    """Raised when the server is a replica and takes no writes; after a failover it may."""


class ClusterError(StoreUnavailableError):
    """Raised when a Redis Cluster sends us to another node, or is not whole."""


class OutOfOrderError(StoreError):
    """Raised when a frame's id is equal to or smaller than the last id of its stream."""


class UnknownRunError(StoreError):
    """Raised when a run id is not in the store."""


class EmptySelectionError(StoreError):
    """Raised when a run holds nothing of what was asked for: a family, a column, a range."""


class DamagedRecordingError(StoreError):
    """Raised when a recording on disk cannot be read at all."""


class UnreadableLogError(StoreError):
    """Raised when a log that others wrote cannot be read as a run: no numbers, no loss, no such column."""


class MissingExtraError(OtoscopeError, ImportError):
    """Raised when an optional dependency is not installed; the message holds the command."""


class ServerError(OtoscopeError):
    """Raised when the embedded Redis server cannot be found or started."""
