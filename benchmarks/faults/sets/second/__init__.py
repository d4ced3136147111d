"""What was held out second: looked at, and tuned on since."""

from .data import DATA
from .nets import NETS

__all__ = ["DATA", "NETS"]
