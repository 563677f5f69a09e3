"""Huawei Cloud's IAM on the loopback interface, as far as federation by OpenID Connect needs it.

It supports two operations:

- the token for an id token: ``POST /v3.0/OS-AUTH/id-token/tokens``
- the temporary key for that token: ``POST /v3.0/OS-CREDENTIAL/securitytokens``

An identity provider is registered as on the real one: by hand, with the issuer, the client id and the public keys.
Where the API pages are silent, an unknown identity provider is a 404 and a token that is not accepted a 401, both
in Keystone's form of errors.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.server import JsonServer, Reply

TOKEN_PATH = "/v3.0/OS-AUTH/id-token/tokens"
KEY_PATH = "/v3.0/OS-CREDENTIAL/securitytokens"
TOKEN_SECONDS = 24 * 60 * 60.0
KEY_SECONDS = range(15 * 60, 24 * 60 * 60 + 1)

Jwks = Mapping[str, Any]


@dataclass(frozen=True)
class IdentityProvider:
    """The required `iss` and `aud` of an id token, and the keys of its signature."""

    issuer: str
    client_id: str
    signing_keys: Jwks


class IamCall(NamedTuple):
    """One call, the status of its reply, and the reason of a refusal."""

    path: str
    idp_id: str | None
    claims: Mapping[str, Any]
    status: int
    reason: str | None


class _RefusalError(Exception):
    def __init__(self, status: int, title: str, message: str) -> None:
        super().__init__(message)
        self.status, self.title = status, title


class HuaweiIam(JsonServer):
    """Issues temporary keys of the `cloud`; runs until the end of the `with` block.

    `identity_providers` and `delay` may be changed at any time. `now` is the clock that tokens and keys expire by.
    """

    def __init__(self, cloud: HuaweiCloud, *, now: Callable[[], float] = time.time) -> None:
        self.identity_providers: dict[str, IdentityProvider] = {}
        super().__init__()
        self.calls: list[IamCall] = []
        self._cloud = cloud
        self._now = now
        self._tokens: dict[str, float] = {}
        self._faults: list[Reply] = []
        self._lock = threading.Lock()

    def fail(self, status: int = 503, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Give this reply to the next call."""
        with self._lock:
            self._faults.append(Reply(status, body, headers or {}))

    def _receive(self, path: str, headers: Message, body: bytes) -> Reply:
        self._stopping.wait(self.delay)
        with self._lock:
            idp_id, reason = headers.get("X-Idp-Id"), None
            claims: dict[str, Any] = {}
            try:
                reply = self._faults.pop(0) if self._faults else self._answer(path, idp_id, body, claims)
            except (ValueError, LookupError, TypeError):
                reply, reason = Reply(400, _error(400, "Bad Request", "malformed")), "malformed"
            except _RefusalError as refusal:
                reason = str(refusal)
                reply = Reply(refusal.status, _error(refusal.status, refusal.title, reason))
            self.calls.append(IamCall(path, idp_id, claims, reply.status, reason))
            return reply._replace(headers={"X-Request-Id": secrets.token_hex(16), **reply.headers})

    def _answer(self, path: str, idp_id: str | None, body: bytes, claims: dict[str, Any]) -> Reply:
        if path == TOKEN_PATH:
            return self._token(idp_id, json.loads(body)["auth"]["id_token"]["id"], claims)
        if path == KEY_PATH:
            return self._key(json.loads(body)["auth"]["identity"])
        raise _RefusalError(404, "Not Found", "no such API")

    def _token(self, idp_id: str | None, id_token: str, claims: dict[str, Any]) -> Reply:
        provider = self.identity_providers.get(idp_id or "")
        if provider is None:
            raise _RefusalError(404, "Not Found", "no such identity provider")
        claims.update(_verified(id_token, provider.signing_keys))
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if claims["iss"] != provider.issuer:
            raise _unauthorized("another issuer")
        if provider.client_id not in audiences:
            raise _unauthorized("another audience")
        if not claims["iat"] - 60 <= self._now() < claims["exp"]:
            raise _unauthorized("expired")
        token, expires_at = secrets.token_urlsafe(48), self._now() + TOKEN_SECONDS
        self._tokens[token] = expires_at
        content = {"expires_at": _timestamp(expires_at), "methods": ["mapped"], "user": {"name": claims["sub"]}}
        return Reply(201, {"token": content}, {"X-Subject-Token": token})

    def _key(self, identity: dict[str, Any]) -> Reply:
        if identity["methods"] != ["token"] or self._tokens.get(identity["token"]["id"], 0.0) <= self._now():
            raise _unauthorized("no such token")
        seconds = identity["token"].get("duration_seconds", KEY_SECONDS.start)
        if seconds not in KEY_SECONDS:
            raise _RefusalError(400, "Bad Request", "malformed duration")
        ak, sk = f"HST{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        security_token, expires_at = secrets.token_urlsafe(96), self._now() + seconds
        self._cloud.add_temporary_key(ak, sk, security_token, expires_at)
        credential = {"access": ak, "secret": sk, "securitytoken": security_token, "expires_at": _timestamp(expires_at)}
        return Reply(201, {"credential": credential})


def _verified(id_token: str, keys: Jwks) -> dict[str, Any]:
    """The claims of an id token that one of the keys has signed."""
    signed, _, signature = id_token.rpartition(".")
    try:
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
    except ValueError:
        raise _unauthorized("no JWT") from None
    key = next((key for key in keys["keys"] if key["kid"] == header.get("kid")), None)
    if header.get("alg") != "RS256" or key is None:
        raise _unauthorized("an unknown key")
    numbers = (int.from_bytes(_decoded(key[name]), "big") for name in ("e", "n"))
    try:
        RSAPublicNumbers(*numbers).public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
    except InvalidSignature:
        raise _unauthorized("a wrong signature") from None
    return dict(claims)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _unauthorized(reason: str) -> _RefusalError:
    return _RefusalError(401, "Unauthorized", reason)


def _error(status: int, title: str, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "title": title, "message": f"The request you have made is refused: {message}."}}


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
