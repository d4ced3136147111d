"""Print docs/rules.md: `python -m otoscope.diagnostics > docs/rules.md`."""

import sys

from .catalogue import as_markdown

sys.stdout.write(as_markdown())
