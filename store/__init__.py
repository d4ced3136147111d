"""What is recorded and where: frames, schemas, keys, Redis, recordings on disk, reading."""

from .connecting import connect
from .errors import (
    ConfigError,
    DamagedRecordingError,
    EmptySelectionError,
    MissingExtraError,
    OtoscopeError,
    OutOfOrderError,
    ServerError,
    StoreError,
    StoreFullError,
    StoreLostError,
    StoreUnavailableError,
    UnknownRunError,
)
from .home import Home, Judgement, Sink
from .memory import MemoryHome
from .reading import Store
from .schemas import (
    Column,
    Event,
    Evidence,
    Finding,
    Frame,
    Meta,
    Recommendation,
    RunInfo,
    Schema,
    Series,
    StreamName,
)

__all__ = [
    "Column",
    "ConfigError",
    "DamagedRecordingError",
    "EmptySelectionError",
    "Event",
    "Evidence",
    "Finding",
    "Frame",
    "Home",
    "Judgement",
    "MemoryHome",
    "Meta",
    "MissingExtraError",
    "OtoscopeError",
    "OutOfOrderError",
    "Recommendation",
    "RunInfo",
    "Schema",
    "Series",
    "ServerError",
    "Sink",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreLostError",
    "StoreUnavailableError",
    "StreamName",
    "UnknownRunError",
    "connect",
]
