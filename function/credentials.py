"""Where the key for Huawei Cloud comes from: Secrets Manager, remembered for minutes, so that it can be rotated."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from function import failures
from function.failures import Kind, RenameFailedError
from function.vpcep import Credentials

MAX_AGE_SECONDS: Final = 300
# How long the last key is good enough while Secrets Manager does not answer: each question costs seconds.
PAUSE_SECONDS: Final = 30
_SOMEBODY_MUST_ACT: Final = frozenset(
    {
        "AccessDeniedException",
        "DecryptionFailure",
        "InvalidParameterException",
        "InvalidRequestException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
    }
)


class SecretsManagerClient(Protocol):
    """As boto3's."""

    def get_secret_value(self, **request: Any) -> dict[str, Any]: ...


class SecretCredentials:
    """The key in a Secrets Manager secret ``{"ak", "sk", "project_id"}``, and ``"security_token"`` where it has one."""

    def __init__(
        self,
        client: SecretsManagerClient,
        secret: str,
        *,
        default_project: str | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            secret: name or ARN.
            default_project: where the secret names none.
        """
        self._client = client
        self._secret = secret
        self._default_project = default_project
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._ask_again_at = 0.0
        self._last: Credentials | None = None

    def __call__(self) -> Credentials:
        """The key as of now.

        Raises:
            RenameFailedError: ``access`` where somebody must mend the secret or the permission to read it,
                ``unavailable`` where Secrets Manager does not answer and never has.
        """
        with self._lock:
            if self._last is not None and self._monotonic() < self._ask_again_at:
                return self._last
            try:
                self._last = self._read(self._client.get_secret_value(SecretId=self._secret))
                self._ask_again_at = self._monotonic() + MAX_AGE_SECONDS
            except (ClientError, BotoCoreError) as error:
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
                kind = Kind.ACCESS if code in _SOMEBODY_MUST_ACT else Kind.UNAVAILABLE
                if self._last is None or kind is Kind.ACCESS:
                    message = f"The secret with the key for Huawei Cloud cannot be read: {code}."
                    raise RenameFailedError(failures.credentials(message, kind=kind)) from None
                self._ask_again_at = self._monotonic() + PAUSE_SECONDS
            return self._last

    def forget(self, key: Credentials) -> None:
        """Look at the secret anew for the next call, if this key is still the last: it may have been rotated."""
        with self._lock:
            if key == self._last:
                self._ask_again_at = 0.0

    def _read(self, answer: dict[str, Any]) -> Credentials:
        try:
            secret = json.loads(answer.get("SecretString") or "")
        except ValueError:
            raise RenameFailedError(_malformed()) from None
        if not isinstance(secret, dict):
            raise RenameFailedError(_malformed())
        match (
            secret.get("ak"),
            secret.get("sk"),
            secret.get("security_token", ""),
            secret.get("project_id", self._default_project),
        ):
            case (str(access_key), str(secret_key), str(token), str(project_id)) if (
                access_key and secret_key and project_id
            ):
                return Credentials(access_key, secret_key, token or None, project_id)
            case _:
                raise RenameFailedError(_malformed())


def _malformed() -> failures.Failure:
    message = 'The secret with the key for Huawei Cloud is not of the form {"ak", "sk", "project_id"}.'
    return failures.credentials(message, kind=Kind.ACCESS)
