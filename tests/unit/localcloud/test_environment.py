"""The file that `make up` writes: a shell that has sourced it works on the local clouds, and on nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from botocore.credentials import Credentials
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion

from tests.localcloud.aws import LocalAwsError
from tests.localcloud.environment import environment_file, script, variables
from tests.localcloud.stack import LOCAL_ACCOUNT, Clouds

IN_EACH_SHELL: Final = pytest.mark.parametrize(
    "shell",
    [
        pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell), reason=f"this machine has no {shell}"))
        for shell in ("sh", "bash", "zsh")
    ],
)
LOCAL: Final = {"AWS_ENDPOINT_URL": "https://127.0.0.1:4566", "HUAWEICLOUD_SDK_AK": "LOCAL"}
AWKWARD: Final = 'it\'s "$(exit 9)" `exit 9` $HOME \\ !x *\n#;é'
REAL: Final = {
    "AWS_PROFILE": "production",
    "AWS_SESSION_TOKEN": "real",
    "AWS_ENDPOINT_URL_SQS": "https://sqs.example",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_ROLE_ARN": "arn:aws:iam::1:role/real",
    "HUAWEICLOUD_SDK_AK": "real",
    "HUAWEICLOUD_SDK_SECURITY_TOKEN": "real",
    "HUAWEICLOUD_CREDENTIALS_SECRET": "real",
    "HUAWEICLOUD_SDK_IDP_ID": "real",
    "HUAWEICLOUD_SDK_REGION_VPCEP_XX_REAL_1": "https://vpcep.example",
    "INNOCENT": "AWS_PROFILE=\nAWS_X=$(exit 9)",
}


def sourced(shell: str, text: str, directory: Path, environment: Mapping[str, str], times: int = 1) -> dict[str, str]:
    """The environment of what a shell starts after it has sourced the text, for which any error is the end."""
    file = directory / "local.env"
    file.write_text(text, encoding="utf-8")
    dump = "import json, os, sys; json.dump(dict(os.environ), sys.stdout)"
    done = subprocess.run(
        [shell, "-euc", f'{". ./local.env; " * times}exec "$0" -c "$1"', shutil.which("python3") or "", dump],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return cast("dict[str, str]", json.loads(done.stdout))


@IN_EACH_SHELL
def test_script_exports_values_unchanged(shell: str, tmp_path: Path) -> None:
    environment = sourced(shell, script({**LOCAL, "AWKWARD": AWKWARD}), tmp_path, {})

    assert environment["AWKWARD"] == AWKWARD
    assert LOCAL.items() <= environment.items()


@IN_EACH_SHELL
def test_script_unsets_variables_that_select_a_real_cloud(shell: str, tmp_path: Path) -> None:
    environment = sourced(shell, script(LOCAL), tmp_path, REAL)

    of_clouds = {name: value for name, value in environment.items() if name.startswith(("AWS_", "HUAWEICLOUD_"))}
    assert of_clouds == LOCAL
    assert environment["INNOCENT"] == REAL["INNOCENT"]


@IN_EACH_SHELL
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_script_reaches_the_loopback_interface_without_a_proxy(shell: str, name: str, tmp_path: Path) -> None:
    environment = sourced(shell, script(LOCAL), tmp_path, {name: "intranet.example"}, times=2)

    hosts = environment["no_proxy"].split(",")
    assert environment["NO_PROXY"] == environment["no_proxy"]
    assert {"127.0.0.1", "localhost", "intranet.example"} == set(hosts)


def clouds() -> Clouds:
    aws: Any = SimpleNamespace(endpoint="https://127.0.0.1:4566", ca=Path("/a b/ca.pem"), region="eu-central-2")
    outputs = {
        "RenameQueueUrl": "https://localhost:4566/123456789012/rename.fifo",
        "RenameApiUrl": "https://abc.execute-api.eu-central-2.amazonaws.com/v1/rename-events",
    }
    return Clouds(
        aws=aws,
        stack=cast("Any", SimpleNamespace(outputs=outputs)),
        account=LOCAL_ACCOUNT,
        local_huawei=None,
        local_iam=cast("Any", SimpleNamespace(url="http://127.0.0.1:4")),
        producer=Credentials("KEY", "secret"),
        tap_url="",
    )


def test_endpoint_of_every_region_of_the_sdk_is_the_local_cloud() -> None:
    found = variables(clouds())

    names = {f"HUAWEICLOUD_SDK_REGION_VPCEP_{region.upper().replace('-', '_')}" for region in VpcepRegion.static_fields}
    assert len(names) > 20
    assert {found[name] for name in names} == {LOCAL_ACCOUNT.endpoint}


def test_variables_have_urls_region_and_keys_of_the_local_clouds() -> None:
    found = variables(clouds())

    assert found["RENAME_QUEUE_URL"] == "https://127.0.0.1:4566/123456789012/rename.fifo"
    assert found["RENAME_API_URL"] == "https://127.0.0.1:4566/_aws/execute-api/abc/v1/rename-events"
    assert (found["AWS_REGION"], found["AWS_DEFAULT_REGION"]) == ("eu-central-2", "eu-central-2")
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == ("KEY", "secret")
    assert found["HUAWEICLOUD_SDK_PROJECT_ID"] == LOCAL_ACCOUNT.project_id


def test_environment_file_is_removed_at_the_end(tmp_path: Path) -> None:
    with environment_file(tmp_path / "build", 4566, "text é") as path:
        assert path == tmp_path / "build" / "local.env"
        assert path.read_text(encoding="utf-8") == "text é"
        assert path.stat().st_mode & 0o777 == 0o600

    assert list((tmp_path / "build").iterdir()) == []


def test_environment_file_of_a_second_process_has_the_port_in_its_name(tmp_path: Path) -> None:
    with environment_file(tmp_path, 1, "first") as first, environment_file(tmp_path, 2, "second") as second:
        assert (first.name, second.name) == ("local.env", "local-2.env")
        assert (first.read_text(), second.read_text()) == ("first", "second")
        with pytest.raises(LocalAwsError, match="other processes have"), environment_file(tmp_path, 2, "third"):
            pass

        assert second.read_text() == "second"


def test_environment_file_of_a_killed_process_is_reused(tmp_path: Path) -> None:
    (tmp_path / "local.env").write_text("of another process, and longer")
    (tmp_path / "local-2.env").write_text("of a second one")

    with environment_file(tmp_path, 1, "new") as path:
        assert [file.name for file in tmp_path.iterdir()] == ["local.env"]
        assert path.read_text() == "new"


def test_environment_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")

    with pytest.raises(LocalAwsError, match="build"), environment_file(tmp_path / "build", 1, "text"):
        pass
