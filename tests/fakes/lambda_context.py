"""Lambda's context."""

from __future__ import annotations

import time


class FakeContext:
    """Lambda's context, as far as the function and Powertools look at it."""

    function_name = "RenameFromTest"
    function_version = "1"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:RenameFromTest"
    aws_request_id = "4ee6b1d0-8a55-4a3c-9a0f-5f3f0c0a7d11"

    def __init__(self, seconds: float = 30.0) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)
