"""What the tests rename, and when: one region, project, service and time for all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

REGION: Final = "cn-north-4"
OTHER_REGION: Final = "eu-west-101"
PROJECT: Final = "0123456789abcdef0123456789abcdef"
OTHER_PROJECT: Final = "fedcba9876543210fedcba9876543210"
SERVICE: Final = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
OTHER_SERVICE = "5b1c4a63-8a62-448e-89ed-f2cbde8e6a3b"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:123456789012:renames.fifo"
BUS = "rename-outcomes"
API_ID = "70ixmpl4fl"
HUAWEI_REQUEST_ID: Final = "c6c9d52b6c3d1b4fa5ed0f8b0e3f7a21"
START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
NOW: Final = datetime(2026, 11, 2, 8, 15, 1, 250_000, tzinfo=UTC)
TIME: Final = "2026-11-02T08:15:00Z"
ARRIVED: Final = "2026-11-02T08:15:00.500Z"
