"""Whom the function trusts. Read once for all connections: it takes longer than to settle an event."""

import ssl
from functools import cache

import certifi


@cache
def ssl_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """Verifies a server by what certifi holds, or a file of the settings."""
    return ssl.create_default_context(cafile=ca_bundle or certifi.where())
