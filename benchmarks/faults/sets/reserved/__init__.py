"""What held-out cases alone train: no threshold was chosen on any of it."""

from .data import DATA
from .nets import NETS
from .tables import LOSSES

__all__ = ["DATA", "LOSSES", "NETS"]
