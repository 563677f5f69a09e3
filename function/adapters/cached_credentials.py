"""Fetches and caches keys for Huawei Cloud: from Secrets Manager, or temporary ones by federation."""

import json
import math
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, ResponseStreamingError

from function.adapters.aws.client import SecretsManagerClient, StsClient, error_code
from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.iam import Iam
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Failure, Kind, RenameFailedError

MAX_AGE_SECONDS: Final = 300
# A failed fetch is not repeated sooner; meanwhile the last key is used.
RETRY_AFTER_FAILURE_SECONDS: Final = 30
# How long a thread waits for another thread's fetch if there is a last key.
MAX_WAIT_SECONDS: Final = 8.0
# An ID token is used at once. A temporary key is renewed this long before it expires, to survive a short outage.
ID_TOKEN_SECONDS: Final = 300
RENEWAL_SECONDS: Final = 600
# For both requests to IAM, which with those before them must fit into an invocation of 25 seconds.
EXCHANGE_SECONDS: Final = 6.0
_CLIENT_ERRORS: Final = range(400, 500)
_THROTTLED: Final = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"})
# Characters that editors and consoles may leave around a value.
_BLANKS: Final = " \t\r\n\v\f\0\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{BYTE ORDER MARK}"
_KEY_TEXT: Final = re.compile(r"[!-~]+")
_PROJECT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PERMANENT_ERRORS: Final = frozenset(
    {
        "AccessDeniedException",
        "DecryptionFailure",
        "InvalidParameterException",
        "InvalidRequestException",
        "ResourceNotFoundException",
        "UnrecognizedClientException",
    }
)


class _State(NamedTuple):
    """The last key and the result of the last fetch.

    Attributes:
        key: None if there is none.
        usable_until: seconds since the epoch.
        fetch_after: seconds since the epoch.
        failure: of the last fetch, None if it succeeded.
    """

    key: Credentials | None = None
    usable_until: float = math.inf
    fetch_after: float = 0.0
    failure: Failure | None = None


@dataclass(eq=False, repr=False)
class _CachedCredentials(ABC):
    """A cached key. One thread at a time fetches a new one.

    The other threads wait for its result, each until its own deadline.

    Attributes:
        no_answer: the failure if there is no key and no fetch has failed.
        keeps_key_if_denied: the last key is used even if the next fetch was denied.
        invalidation_seconds: an invalidation has no effect so soon after another.
        now: seconds since the epoch, by a clock that continues while the environment is frozen.
    """

    no_answer: ClassVar[Failure]
    keeps_key_if_denied: ClassVar[bool] = False
    invalidation_seconds: ClassVar[float] = 0.0

    now: Callable[[], float] = field(default=time.time, kw_only=True)
    _state: _State = field(init=False, default=_State())
    _state_lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _fetching: threading.Lock = field(init=False, default_factory=threading.Lock)
    _fetch_number: int = field(init=False, default=0)
    _abandoned_fetch: int = field(init=False, default=-1)
    _invalidate_again_at: float = field(init=False, default=0.0)

    def get(self, deadline: Deadline) -> Credentials:
        """The current key. Waits for it at most until the deadline.

        Raises:
            RenameFailedError: ``access`` if an operator must act, ``unavailable`` if the cause may be transient.
        """
        state = self._state
        if self.now() >= state.fetch_after:
            state = self._renewed(deadline)
        if state.key is None or self.now() >= state.usable_until:
            raise RenameFailedError(state.failure or self.no_answer)
        return state.key

    def _renewed(self, deadline: Deadline) -> _State:
        number = self._fetch_number
        # A fetch in progress is waited for only once: it may hang in a name lookup, which has no timeout.
        seconds = 0.0 if number == self._abandoned_fetch else deadline.remaining()
        if self._state.key is not None:
            seconds = min(seconds, MAX_WAIT_SECONDS)
        if not self._fetching.acquire(timeout=max(0.0, seconds)):
            self._abandoned_fetch = number
            return self._state
        try:
            state = self._state
            if self.now() < state.fetch_after or deadline.remaining() <= 0:
                return state
            return self._fetch_and_store(state, deadline)
        finally:
            self._fetch_number += 1
            self._fetching.release()

    def _fetch_and_store(self, last: _State, deadline: Deadline) -> _State:
        try:
            state = self._fetch(deadline)
        except RenameFailedError as error:
            failure = error.failure
            kept = last if failure.kind is not Kind.ACCESS or self.keeps_key_if_denied else _State()
            # Its only cause may have been too little time.
            is_late = failure.kind is Kind.UNAVAILABLE and deadline.remaining() <= 0
            fetch_after = 0.0 if is_late else self.now() + RETRY_AFTER_FAILURE_SECONDS
            state = kept._replace(fetch_after=fetch_after, failure=failure)
        with self._state_lock:
            if self._state is not last and state.key == last.key:
                state = state._replace(fetch_after=0.0)  # it was invalidated meanwhile
            self._state = state
        return state

    def invalidate(self, key: Credentials) -> None:
        """Fetch the key again before the next call, unless there is a newer one. Never waits."""
        with self._state_lock:
            if key == self._state.key and self.now() >= self._invalidate_again_at:
                self._invalidate_again_at = self.now() + self.invalidation_seconds
                self._state = self._state._replace(fetch_after=0.0)

    @abstractmethod
    def _fetch(self, deadline: Deadline) -> _State:
        """Fetch the key.

        Raises:
            RenameFailedError: there is none.
        """


def _no_secret(reason: str, kind: Kind, *, aws_error_code: str | None = None) -> Failure:
    message = f"The secret with the key for Huawei Cloud {reason}."
    return failures.credentials(message, kind=kind, aws_error_code=aws_error_code)


@dataclass(eq=False, repr=False)
class SecretCredentials(_CachedCredentials):
    """The key in a Secrets Manager secret ``{"ak", "sk", "project_id"}``, and ``"security_token"`` if it has one.

    The last key is used while Secrets Manager does not respond, but not if it denies access or the secret is malformed.

    Attributes:
        secret: name or ARN.
        default_project: used if the secret names none.
    """

    no_answer = _no_secret("cannot be read: there was no answer in time", Kind.UNAVAILABLE)

    client: SecretsManagerClient
    secret: str
    _: KW_ONLY
    default_project: str | None

    def _fetch(self, deadline: Deadline) -> _State:
        try:
            answer = self.client.get_secret_value(deadline, SecretId=self.secret)
        except (ClientError, BotoCoreError) as error:
            code = error_code(error)
            kind = Kind.ACCESS if code in _PERMANENT_ERRORS else Kind.UNAVAILABLE
            raise RenameFailedError(_no_secret(f"cannot be read: {code}", kind, aws_error_code=code)) from error
        return _State(self._read(answer), fetch_after=self.now() + MAX_AGE_SECONDS)

    def _read(self, answer: dict[str, Any]) -> Credentials:
        try:
            secret = json.loads((answer.get("SecretString") or "").strip(_BLANKS))
        except (ValueError, RecursionError):
            raise _malformed("is not a JSON text") from None
        if not isinstance(secret, dict):
            raise _malformed("is not a JSON object")

        def text(name: str, pattern: re.Pattern[str], default: str | None = None) -> str:
            value = secret.get(name, default)
            if not isinstance(value, str) or not (value := value.strip(_BLANKS)):
                raise _malformed(f'has no text under "{name}"')
            if not pattern.fullmatch(value):
                raise _malformed(f'has a character under "{name}" that cannot be part of it')
            return value

        return Credentials(
            text("ak", _KEY_TEXT),
            text("sk", _KEY_TEXT),
            text("security_token", _KEY_TEXT) if secret.get("security_token", "") != "" else None,
            text("project_id", _PROJECT_ID, self.default_project),
        )


def _malformed(reason: str) -> RenameFailedError:
    return RenameFailedError(_no_secret(f'{reason}. Its form is {{"ak", "sk", "project_id"}}', Kind.ACCESS))


def _no_key(reason: str, *, may_pass: bool, aws_error_code: str | None = None) -> Failure:
    message = f"There is no temporary key for Huawei Cloud: {reason}."
    kind = Kind.UNAVAILABLE if may_pass else Kind.ACCESS
    return failures.credentials(message, kind=kind, aws_error_code=aws_error_code)


@dataclass(eq=False, repr=False)
class FederatedCredentials(_CachedCredentials):
    """A temporary key from Huawei Cloud, in exchange for an AWS token that proves the function's role. Needs no secret.

    A key is used until it expires if there is no newer one.

    Attributes:
        audience: of the token: the client id that the identity provider is registered with.
    """

    no_answer = _no_key("there was no answer in time", may_pass=True)
    keeps_key_if_denied = True
    # Rarely: a new key helps if the old one was revoked, not if a permission is missing.
    invalidation_seconds = MAX_AGE_SECONDS

    client: StsClient
    iam: Iam
    _: KW_ONLY
    audience: str

    def _fetch(self, deadline: Deadline) -> _State:
        try:
            key, expires = self.iam.temporary_key(self._id_token(deadline), deadline.within(EXCHANGE_SECONDS))
        except (ClientError, BotoCoreError) as error:
            raise RenameFailedError(_no_token(error)) from error
        except RenameFailedError as error:
            raise RenameFailedError(_refused(error.failure)) from error
        expires_at = expires.timestamp()
        fetch_after = max(expires_at - RENEWAL_SECONDS, self.now() + RETRY_AFTER_FAILURE_SECONDS)
        return _State(key, expires_at, fetch_after)

    def _id_token(self, deadline: Deadline) -> str:
        answer = self.client.get_web_identity_token(
            deadline, Audience=[self.audience], DurationSeconds=ID_TOKEN_SECONDS, SigningAlgorithm="RS256"
        )
        if not (token := answer.get("WebIdentityToken")):
            raise ResponseStreamingError(error="there is no token in the answer")
        return str(token)


def _no_token(error: ClientError | BotoCoreError) -> Failure:
    code = error_code(error)
    status = error.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(error, ClientError) else None
    may_pass = status not in _CLIENT_ERRORS or code in _THROTTLED
    return _no_key(f"AWS gives no token: {code}", may_pass=may_pass, aws_error_code=code)


def _refused(failure: Failure) -> Failure:
    """The failure of an exchange, as one of credentials: if IAM rejects it, an operator must act."""
    status = failure.http_status
    may_pass = failure.kind in (Kind.THROTTLED, Kind.UNAVAILABLE) or status not in _CLIENT_ERRORS
    reason = failure.code if status is None else f"HTTP status {status}, {failure.code}"
    own = _no_key(f"IAM gives none: {reason}", may_pass=may_pass)
    return own._replace(http_status=status, huawei_request_id=failure.huawei_request_id)
