"""Where the key for Huawei Cloud comes from.

Either from Secrets Manager, remembered for minutes, so that it can be rotated; or from Huawei Cloud itself, which gives
a temporary one to the function's role.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError, ResponseStreamingError

from function import failures
from function.deadline import Deadline
from function.failures import Failure, Kind, RenameFailedError
from function.vpcep import Credentials, Iam

MAX_AGE_SECONDS: Final = 300
# How long the last key is good enough while Secrets Manager does not answer: each question costs seconds.
PAUSE_SECONDS: Final = 30
# A token is used at once; a temporary key is renewed this long before it expires, so that an outage may pass meanwhile.
ID_TOKEN_SECONDS: Final = 300
RENEWAL_SECONDS: Final = 600
# For both requests of an exchange. With those before it, it must fit into an invocation of 25 seconds.
EXCHANGE_SECONDS: Final = 6.0
_CLIENT_ERRORS: Final = range(400, 500)
_THROTTLED: Final = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"})
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
    """As boto3's, with the deadline of each request."""

    def get_secret_value(self, deadline: Deadline, **request: Any) -> dict[str, Any]: ...


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

    def __call__(self, deadline: Deadline) -> Credentials:
        """The key as of now.

        Raises:
            RenameFailedError: ``access`` where somebody must mend the secret or the permission to read it,
                ``unavailable`` where Secrets Manager does not answer and never has.
        """
        with self._lock:
            if self._last is not None and self._monotonic() < self._ask_again_at:
                return self._last
            try:
                self._last = self._read(self._client.get_secret_value(deadline, SecretId=self._secret))
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


class StsClient(Protocol):
    """As boto3's, with the deadline of each request."""

    def get_web_identity_token(self, deadline: Deadline, **request: Any) -> dict[str, Any]: ...


class FederatedCredentials:
    """A temporary key from Huawei Cloud, for a token by which AWS vouches for the function's role: no secret at all."""

    def __init__(self, client: StsClient, iam: Iam, *, audience: str, now: Callable[[], float] = time.time) -> None:
        """
        Args:
            audience: whom the token is for: the client id that the identity provider is registered with.
            now: seconds since the epoch; a clock that also goes on while the environment is frozen.
        """
        self._client = client
        self._iam = iam
        self._audience = audience
        self._now = now
        self._lock = threading.Lock()
        self._key: Credentials | None = None
        self._expires_at = 0.0
        self._failure: Failure | None = None
        self._ask_again_at = 0.0
        self._forget_again_at = 0.0

    def __call__(self, deadline: Deadline) -> Credentials:
        """The key as of now; none is given up before it expires.

        Raises:
            RenameFailedError: ``access`` where somebody must mend the identity provider or the role, ``unavailable``
                where AWS or Huawei Cloud does not answer.
        """
        with self._lock:
            if self._now() >= self._ask_again_at:
                self._ask(deadline)
            if self._key is None or self._now() >= self._expires_at:
                raise RenameFailedError(self._failure or _no_key("it has expired", Kind.UNAVAILABLE))
            return self._key

    def forget(self, key: Credentials) -> None:
        """Ask for another key for the next call, if this one is still the last.

        Once in a while only: another one helps where this one was called back, not where a permission is missing.
        """
        with self._lock:
            if key == self._key and self._now() >= self._forget_again_at:
                self._ask_again_at = 0.0
                self._forget_again_at = self._now() + MAX_AGE_SECONDS

    def _ask(self, deadline: Deadline) -> None:
        try:
            self._key, expires = self._iam.temporary_key(self._id_token(deadline), EXCHANGE_SECONDS)
        except (ClientError, BotoCoreError) as error:
            self._failure = _no_token(error)
            self._ask_again_at = self._now() + PAUSE_SECONDS
        except RenameFailedError as error:
            self._failure = _refused(error.failure)
            self._ask_again_at = self._now() + PAUSE_SECONDS
        else:
            self._failure = None
            self._expires_at = expires.timestamp()
            self._ask_again_at = max(self._expires_at - RENEWAL_SECONDS, self._now() + PAUSE_SECONDS)

    def _id_token(self, deadline: Deadline) -> str:
        answer = self._client.get_web_identity_token(
            deadline, Audience=[self._audience], DurationSeconds=ID_TOKEN_SECONDS, SigningAlgorithm="RS256"
        )
        if not (token := answer.get("WebIdentityToken")):
            raise ResponseStreamingError(error="there is no token in the answer")
        return str(token)


def _no_token(error: ClientError | BotoCoreError) -> Failure:
    if not isinstance(error, ClientError):
        return _no_key(f"AWS gives no token: {type(error).__name__}", Kind.UNAVAILABLE)
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    may_pass = status not in _CLIENT_ERRORS or code in _THROTTLED
    return _no_key(f"AWS gives no token: {code}", Kind.UNAVAILABLE if may_pass else Kind.ACCESS)


def _refused(failure: Failure) -> Failure:
    """What an exchange failed with is no failure of a rename: whatever Huawei Cloud refuses, somebody must mend."""
    may_pass = failure.kind in (Kind.THROTTLED, Kind.UNAVAILABLE) or failure.http_status not in _CLIENT_ERRORS
    reason = failure.code if failure.http_status is None else f"HTTP status {failure.http_status}, {failure.code}"
    return replace(
        _no_key(f"IAM gives none: {reason}", Kind.UNAVAILABLE if may_pass else Kind.ACCESS),
        http_status=failure.http_status,
        huawei_request_id=failure.huawei_request_id,
    )


def _no_key(reason: str, kind: Kind) -> Failure:
    return failures.credentials(f"There is no temporary key for Huawei Cloud: {reason}.", kind=kind)
