"""The file that a shell sources to use the local clouds, and no real one."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion

from tests.localcloud.aws import LocalAwsError
from tests.localcloud.stack import Clouds

# Any of these variables could lead to a real cloud: AWS_PROFILE, AWS_SESSION_TOKEN and HUAWEICLOUD_SDK_SECURITY_TOKEN,
# endpoints of single services, roles, settings that switch endpoints off.
_UNSET = r"""
for vpcep_rename_variable in $(env | sed -n -e 's/^\(AWS_[A-Za-z0-9_]*\)=.*/\1/p' \
    -e 's/^\(HUAWEICLOUD_[A-Za-z0-9_]*\)=.*/\1/p'); do
  unset "$vpcep_rename_variable"
done
unset vpcep_rename_variable
"""
_NO_PROXY = """
export no_proxy="127.0.0.1,localhost,${no_proxy:-${NO_PROXY:-}}"
export NO_PROXY="$no_proxy"
"""


def variables(clouds: Clouds) -> dict[str, str]:
    """The variables that select the local clouds, with a producer's key."""
    assert clouds.local_iam, "for local clouds only"
    account, aws = clouds.account, clouds.aws
    queue = clouds.stack.outputs["RenameQueueUrl"].split("/", 3)[3]
    return {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_CA_BUNDLE": str(aws.ca),
        "AWS_REGION": aws.region,
        "AWS_DEFAULT_REGION": aws.region,
        "AWS_ACCESS_KEY_ID": clouds.producer.access_key,
        "AWS_SECRET_ACCESS_KEY": clouds.producer.secret_key,
        # Profiles of the machine would take effect in addition to the variables.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "RENAME_QUEUE_URL": f"{aws.endpoint}/{queue}",
        "RENAME_API_URL": clouds.rename_api_url,
        **account.environment(),
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": clouds.local_iam.url,
        # Other regions too, so that none selects the real cloud.
        **{
            f"HUAWEICLOUD_SDK_REGION_VPCEP_{region.upper().replace('-', '_')}": account.endpoint
            for region in sorted({account.region, *VpcepRegion.static_fields})
        },
    }


def script(variables: Mapping[str, str]) -> str:
    """Shell that exports the variables, for bash, zsh and sh; those of other clouds are unset first."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return f"# To be sourced, while `make up` runs.\n{_UNSET}\n{exports}{_NO_PROXY}"


@contextmanager
def environment_file(directory: Path, port: int, text: str) -> Iterator[Path]:
    """`local.env` in the directory, or `local-<port>.env` while another process has that; removed at the end.

    The process that owns a file has it locked; a file of a killed process is reused or removed.

    Raises:
        LocalAwsError: the directory takes no file.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(directory)
        path, descriptor = _open_first(directory / "local.env", directory / f"local-{port}.env")
        os.truncate(descriptor, 0)
        os.write(descriptor, os.fsencode(text))
    except OSError as error:
        raise LocalAwsError(f"{directory} cannot hold the file to source: {error}") from None
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_abandoned(directory: Path) -> None:
    for path in directory.glob("local-*.env"):
        with suppress(BlockingIOError):
            descriptor = _open_locked(path)
            path.unlink()
            os.close(descriptor)


def _open_first(*paths: Path) -> tuple[Path, int]:
    """The first of the files that no other process has locked, and a descriptor that has it locked."""
    for path in paths:
        with suppress(BlockingIOError):
            return path, _open_locked(path)
    raise FileExistsError(f"other processes have {' and '.join(map(str, paths))}")


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has removed it since
