"""The environment that the function is configured by in tests."""

from __future__ import annotations

import json

from tests.fakes.identifiers import BUS, PROJECT, REGION
from tests.localcloud.huawei import HuaweiCloud

ENVIRONMENT = {
    "HUAWEICLOUD_REGION": REGION,
    "HUAWEICLOUD_SDK_AK": "UNITACCESSKEY",
    "HUAWEICLOUD_SDK_SK": "unit-secret-key",
    "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT,
    "OUTCOME_BUS": BUS,
    "POWERTOOLS_SERVICE_NAME": "vpcep-rename",
    "POWERTOOLS_METRICS_NAMESPACE": "VpcepRename",
    "AWS_ACCESS_KEY_ID": "UNITAWSACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "unit-aws-secret-key",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # A test that forgets to say where AWS is must reach nobody.
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}
# In addition to it: the key is in a secret, or temporary by federation.
SECRET = {"HUAWEICLOUD_CREDENTIALS_SECRET": "huawei"}
KEYLESS = {"HUAWEICLOUD_SDK_AK": "", "HUAWEICLOUD_SDK_SK": "", "HUAWEICLOUD_SDK_IDP_ID": "aws"}
# What the secret holds.
SECRET_VALUE = json.dumps({"ak": "UNITACCESSKEY", "sk": "unit-secret-key", "project_id": PROJECT})


def local_huawei_cloud() -> HuaweiCloud:
    """With the key of the environment."""
    ak, sk = ENVIRONMENT["HUAWEICLOUD_SDK_AK"], ENVIRONMENT["HUAWEICLOUD_SDK_SK"]
    return HuaweiCloud(ak=ak, sk=sk, project_id=PROJECT, region=REGION)
