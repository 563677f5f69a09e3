"""The TLS context, created once per process: reading the certificates takes longer than settling an event."""

import ssl
from functools import cache

import certifi


@cache
def ssl_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """Verifies servers against certifi's certificates, or against those of a file."""
    return ssl.create_default_context(cafile=ca_bundle or certifi.where())
