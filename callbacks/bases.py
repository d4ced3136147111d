"""The bases of the Lightning callback: `Callback` of pytorch_lightning, of lightning, or of both."""

from __future__ import annotations

import importlib
import sys

from ..store import MissingExtraError

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def callback_bases() -> tuple[type, ...]:
    """Return the Callback classes of whichever packages are imported, else of the first there is.

    The two packages hold different classes of the same name, and libraries use either.
    """
    names = [name for name in PACKAGES if name in sys.modules]
    for name in names or PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        if name not in names:
            names.append(name)
            break
    bases = [sys.modules[name].Callback for name in names if hasattr(sys.modules[name], "Callback")]
    if not bases:
        raise MissingExtraError(
            "neither pytorch_lightning nor lightning is installed; install one with "
            "`pip install 'otoscope[lightning]'`, or use otoscope.callbacks.attach in a plain loop"
        )
    return tuple(dict.fromkeys(bases))


def class_now(cls: type) -> type:
    """Return the class with the Callback of every package that is imported by now among its bases."""
    missing = tuple(base for base in callback_bases() if not issubclass(cls, base))
    if not missing:
        return cls
    key = (cls, missing)
    if key not in _CLASSES:
        _CLASSES[key] = type(cls.__name__, (cls, *missing), {"__doc__": cls.__doc__})
    return _CLASSES[key]


_CLASSES: dict[tuple[type, tuple[type, ...]], type] = {}
