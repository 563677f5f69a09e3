"""What AWS signs the web identity tokens of one account with, and the public half as its issuer publishes it."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa


class Issuer:
    """An issuer with one key, RSA for RS256."""

    def __init__(self) -> None:
        self.url = f"https://{secrets.token_hex(16)}.tokens.sts.global.api.aws"
        self._kid = secrets.token_hex(8)
        self._numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()

    def jwks(self) -> dict[str, Any]:
        public = self._numbers.public_numbers
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self._kid}
        return {"keys": [key | {"n": _encoded(public.n), "e": _encoded(public.e)}]}

    def write_to(self, path: Path) -> None:
        """Private half included, for whoever signs."""
        numbers = {"n": self._numbers.public_numbers.n, "d": self._numbers.d}
        path.write_text(json.dumps({"issuer": self.url, "kid": self._kid, **numbers}))


def _encoded(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
