"""The cursor of a page: what it has of a run, held by the browser and opaque to it."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field

from ..store.home import FIRST_EVENT

LONGEST = 4096
"""Characters; a cursor of ours has about 200, and 8 more for each finding."""
DIGEST = 6
"""Letters of a finding's digest, 6 bits each: one change in 70 billion would not be seen."""


@dataclass(slots=True)
class Cursor:
    """Last step of each family, last event, and digests of what the answer was made from.

    `shape` changes with the attempt and the question asked, `parts` with the columns of a family:
    a cursor that differs in one of them cannot be continued. `judgement` tells whether the
    judgement has to be sent again, `findings` which of its findings the page has: a digest of
    DIGEST letters each.
    """

    shape: str = ""
    event: str = FIRST_EVENT
    steps: dict[str, int] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    judgement: str = ""
    findings: str = ""

    def encode(self) -> str:
        """Return the cursor in letters that need no quoting in a URL.

        >>> Cursor.decode(Cursor("a", "3-0", {"train": 7}).encode()).steps
        {'train': 7}
        """
        held = [self.shape, self.event, self.steps, self.parts, self.judgement, self.findings]
        body = json.dumps(held, separators=(",", ":"))
        return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor | None:
        """Read what `encode` wrote; None where the text is anything else.

        >>> Cursor.decode("never ours") is None
        True
        """
        if not text or len(text) > LONGEST:
            return None
        try:
            body = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            return None
        if not (isinstance(body, list) and len(body) == 6):
            return None
        shape, event, steps, parts, judgement, findings = body
        sound = (
            all(isinstance(part, str) for part in (shape, event, judgement, findings))
            and isinstance(steps, dict)
            and all(type(step) is int and 0 <= step < 2**53 for step in steps.values())
            and isinstance(parts, dict)
            and all(isinstance(part, str) for part in parts.values())
            and is_event_id(event)
        )
        return cls(shape, event, steps, parts, judgement, findings) if sound else None

    def has(self, finding: str) -> bool:
        """Tell whether the page has a finding, by its digest."""
        known = range(0, len(self.findings), DIGEST)
        return any(self.findings[at : at + DIGEST] == finding for at in known)


def is_event_id(text: str) -> bool:
    """Tell whether a text is a stream id, `<number>-<number>`.

    >>> is_event_id("1700000000000-0"), is_event_id("$")
    (True, False)
    """
    parts = text.split("-")
    return len(parts) == 2 and all(
        part.isascii() and part.isdigit() and len(part) <= 19 for part in parts
    )
