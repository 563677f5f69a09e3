"""A key for Huawei Cloud, and the protocol of its providers."""

from typing import NamedTuple, Protocol

from function.domain.deadline import Deadline


class Credentials(NamedTuple):
    """A key for Huawei Cloud."""

    access_key: str
    secret_key: str
    security_token: str | None
    project_id: str


class CredentialsProvider(Protocol):
    """The source of the key."""

    def get(self, deadline: Deadline) -> Credentials:
        """The current key, usually cached. Waits for it at most until the deadline.

        Raises:
            RenameFailedError: ``access`` if an operator must act, ``unavailable`` if the cause may be transient.
        """

    def invalidate(self, key: Credentials) -> None:
        """The key was rejected: fetch it again before the next call. Never waits."""


class StaticCredentials:
    """A key from the settings."""

    def __init__(self, key: Credentials) -> None:
        self._key = key

    def get(self, deadline: Deadline) -> Credentials:  # noqa: ARG002 - the protocol's
        return self._key

    def invalidate(self, key: Credentials) -> None:
        """Does nothing: there is no other key."""
