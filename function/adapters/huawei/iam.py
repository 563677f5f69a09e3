"""Temporary keys from Huawei Cloud's IAM, by federation (OpenID Connect)."""

from datetime import UTC, datetime
from typing import Final

from huaweicloudsdkcore.auth.internal import IamHelper
from huaweicloudsdkcore.http.http_client import HttpClient
from huaweicloudsdkcore.http.http_config import HttpConfig

from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.redaction import Redactor
from function.adapters.huawei.transport import USER_AGENT, Call, ErrorReplies, call_scope, install_adapter
from function.domain.deadline import Deadline
from function.domain.failures import RenameFailedError

# 15 minutes to a day. A leaked key can be used for this long.
TEMPORARY_KEY_SECONDS: Final = 3_600


class Iam:
    """Exchanges an ID token for a temporary key, with the SDK's requests.

    The SDK's own credentials read the token from a file, wait for minutes, and fetch once per thread.
    """

    def __init__(self, idp_id: str, project_id: str, *, endpoint: str) -> None:
        """
        Args:
            idp_id: of the registered identity provider.
            project_id: the project that the key is used for.
            endpoint: of IAM.
        """
        self._idp_id = idp_id
        self._project_id = project_id
        self._endpoint = endpoint
        self._config = HttpConfig(user_agent=USER_AGENT)

    def temporary_key(self, id_token: str, deadline: Deadline) -> tuple[Credentials, datetime]:
        """Fetch a key, and the time when it expires.

        ``POST /v3.0/OS-AUTH/id-token/tokens``, then ``POST /v3.0/OS-CREDENTIAL/securitytokens``

        Raises:
            RenameFailedError: for any exception of the SDK.
        """
        # A new client each time: a reused connection would be an hour old.
        http = HttpClient(self._config, http_handler=None, exception_handler=ErrorReplies(), logger=None)
        install_adapter(http, pool_size=1)
        try:
            with call_scope(deadline, Redactor(id_token.split("."))):
                request = IamHelper.get_create_unscoped_token_by_id_token_request(
                    self._config, self._endpoint, self._idp_id, id_token
                )
                token = IamHelper.create_unscoped_token_by_id_token(http, request)
            with call_scope(deadline, Redactor([token, *id_token.split(".")])) as call:
                request = IamHelper.get_create_temporary_access_key_by_token_request(
                    self._config, self._endpoint, token, TEMPORARY_KEY_SECONDS
                )
                return self._read(IamHelper.create_temporary_access_key_by_token(http, request), call)
        finally:
            http.close()

    def _read(self, credential: object, call: Call) -> tuple[Credentials, datetime]:
        match credential:
            case {"access": str(ak), "secret": str(sk), "securitytoken": str(token), "expires_at": str(expires_at)} if (
                ak and sk and token
            ):
                expires = datetime.fromisoformat(expires_at)
                return Credentials(ak, sk, token, self._project_id), expires.replace(tzinfo=expires.tzinfo or UTC)
            case _:
                raise RenameFailedError(call.unconfirmed())
