"""The floor: one rename and one PutEvents by the SDK and boto3, and nothing else: no ledger, no checks."""

import json
import os
from typing import Any

import boto3
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkvpcep.v1 import (
    UpdateEndpointServiceNameRequest,
    UpdateEndpointServiceNameRequestBody,
    VpcepClient,
)
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion

events = boto3.client("events")
vpcep = (
    VpcepClient.new_builder()
    .with_credentials(
        BasicCredentials(
            os.environ["HUAWEICLOUD_SDK_AK"],
            os.environ["HUAWEICLOUD_SDK_SK"],
            os.environ["HUAWEICLOUD_SDK_PROJECT_ID"],
        )
    )
    .with_region(VpcepRegion.value_of(os.environ["HUAWEICLOUD_REGION"]))
    .build()
)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Carries out the rename of the first record or of the HTTP request."""
    records = event.get("Records")
    data = json.loads(records[0]["body"] if records else event["body"])["data"]
    body = UpdateEndpointServiceNameRequestBody(endpoint_service_name=data["endpoint_service_name"])
    request = UpdateEndpointServiceNameRequest(vpc_endpoint_service_id=data["vpc_endpoint_service_id"], body=body)
    name = vpcep.update_endpoint_service_name(request).endpoint_service_name
    events.put_events(
        Entries=[
            {
                "EventBusName": os.environ["OUTCOME_BUS"],
                "Source": "vpcep.rename",
                "DetailType": "vpcep.endpoint_service.renamed.v1",
                "Detail": json.dumps({"service_name": name}),
            }
        ]
    )
    return {"batchItemFailures": []} if records else {"statusCode": 200, "body": name}
