"""The issuer of the web identity tokens of one AWS account, with its key pair."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256


class Issuer:
    """An issuer with one key, RSA for RS256."""

    def __init__(self) -> None:
        self.url = f"https://{secrets.token_hex(16)}.tokens.sts.global.api.aws"
        self._kid = secrets.token_hex(8)
        self._key = generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> dict[str, Any]:
        public = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self._kid}
        return {"keys": [key | {"n": _encoded(_bytes(public.n)), "e": _encoded(_bytes(public.e))}]}

    def token(self, **claims: Any) -> str:
        header = {"alg": "RS256", "kid": self._kid, "typ": "JWT"}
        parts = [header, {"iss": self.url, **claims}]
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_encoded(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"

    def write_to(self, path: Path) -> None:
        """With the private key, for the process that signs."""
        numbers = self._key.private_numbers()
        key = {"issuer": self.url, "kid": self._kid, "n": numbers.public_numbers.n, "d": numbers.d}
        path.write_text(json.dumps(key))


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
