"""The rename queue and the dead-letter queue in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from function.domain.deadline import Deadline
from function.domain.model import RenameEvent

REFUSAL = "AccessDenied"


class Forwarded(NamedTuple):
    body: str
    group: str
    attributes: dict[str, Any]
    message_id: str


class FakeQueue:
    """The rename queue or the dead-letter queue, as the triggers see it.

    Attributes:
        extensions: of visibility: the receipt handles of messages, and for how many seconds.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[RenameEvent, str]] = []
        self.forwarded: list[Forwarded] = []
        self.extensions: list[tuple[list[str], int]] = []
        self.refuses = False

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> str | None:
        if self.refuses:
            return REFUSAL
        self.sent.append((event, deduplication_id))
        return None

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> str | None:
        if self.refuses:
            return REFUSAL
        self.forwarded.append(Forwarded(body, group, dict(attributes), message_id))
        return None

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> str | None:
        if self.refuses:
            return REFUSAL
        for seconds in dict.fromkeys(delays.values()):
            self.extensions.append(([handle for handle, delay in delays.items() if delay == seconds], seconds))
        return None
