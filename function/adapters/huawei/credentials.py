"""A key for Huawei Cloud, and where it comes from."""

from typing import NamedTuple, Protocol

from function.domain.deadline import Deadline


class Credentials(NamedTuple):
    """A key for Huawei Cloud."""

    access_key: str
    secret_key: str
    security_token: str | None
    project_id: str


class CredentialsProvider(Protocol):
    """Where the key comes from."""

    def get(self, deadline: Deadline) -> Credentials:
        """The current key; usually cached. Waits for it until the deadline at most.

        Raises:
            RenameFailedError: ``access`` if an operator must act, ``unavailable`` if the cause may be transient.
        """

    def invalidate(self, key: Credentials) -> None:
        """This key was refused: fetch it again before the next call. Never waits."""


class StaticCredentials:
    """A key that the settings hold."""

    def __init__(self, key: Credentials) -> None:
        self._key = key

    def get(self, deadline: Deadline) -> Credentials:  # noqa: ARG002 - the protocol's
        return self._key

    def invalidate(self, key: Credentials) -> None:
        """There is no other."""
