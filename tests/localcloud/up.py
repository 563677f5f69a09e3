"""`make up`: the deployed function between two local clouds that stay up, for your own events.

Keys of a real cloud in the environment are not used.
"""

import json
import select
import sys
import time
from typing import Final

from tests.localcloud import environment
from tests.localcloud.aws import ACCOUNT, ROOT, LocalAwsError
from tests.localcloud.monitor import FAULTS, Monitor
from tests.localcloud.page.server import Page
from tests.localcloud.process import quiet_end
from tests.localcloud.stack import OUTCOME_SOURCE, Clouds, local_clouds, tap

# In most other regions version 1 of the AWS CLI sends to AWS's own SQS, whatever AWS_ENDPOINT_URL says.
REGION: Final = "eu-central-2"
# The first is the one in the documents' commands.
SERVICES: Final = {
    "070c4a63-8a62-448e-89ed-f2cbde8e6a3b": "billing",
    "2f6b9d10-5c3e-4a7f-b8d4-91e0c7a3f562": "search",
    "c4e8a1f7-0d92-4b6e-a35c-7f1b2d8e9064": "stock",
}
QUEUE_COMMAND: Final = (
    'aws sqs send-message --queue-url "$RENAME_QUEUE_URL" --message-group-id "$SERVICE_ID_1" '
    '--message-deduplication-id "$(date +%s)-$RANDOM" '
    r'--message-body "{\"vpc_endpoint_service_id\": \"$SERVICE_ID_1\", \"endpoint_service_name\": \"orders\"}"'
)
# Without the braces :e would be a modifier in zsh.
HTTP_COMMAND: Final = (
    'curl "$RENAME_API_URL" --cacert "$AWS_CA_BUNDLE" --aws-sigv4 "aws:amz:${AWS_REGION}:execute-api" '
    '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" -H "content-type: application/json" '
    r'--data "{\"vpc_endpoint_service_id\": \"$SERVICE_ID_2\", \"endpoint_service_name\": \"find\"}"'
)
OUTCOMES_COMMAND: Final = (
    'aws sqs receive-message --queue-url "$OUTCOMES_QUEUE_URL" --max-number-of-messages 10 --query "Messages[].Body"'
)
OUTCOMES_KEPT_SECONDS: Final = 24 * 60 * 60


def main() -> int:
    started = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}")

    try:
        with local_clouds(progress, parameters={"OutcomeLogDays": "1"}, region=REGION) as clouds:
            for service_id, name in SERVICES.items():
                clouds.huawei.add_service(service_id, name)
            outcomes = _outcomes_queue(clouds)
            _let_operate(clouds)
            with Monitor(clouds) as monitor, Page(clouds, monitor) as page:
                variables = environment.variables(clouds) | {
                    "OUTCOMES_QUEUE_URL": outcomes,
                    "LOCAL_CLOUDS_URL": page.url,
                    **{f"SERVICE_ID_{number}": service_id for number, service_id in enumerate(SERVICES, start=1)},
                }
                port = int(clouds.aws.endpoint.rpartition(":")[2])
                with environment.environment_file(ROOT / ".build", port, environment.script(variables)) as path:
                    progress("Ready.")
                    print(_introduction(str(path.relative_to(ROOT)), page.url))
                    _follow(monitor, clouds)
    except LocalAwsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _introduction(path: str, page: str) -> str:
    services = [f"  $SERVICE_ID_{number}  {each}  {SERVICES[each]}" for number, each in enumerate(SERVICES, start=1)]
    faults = [f"  {name:<12} {text}" for name, text in FAULTS.items()]
    return f"""
In another shell, in this directory:

  . {path}

Send a first event, through the queue:

  {QUEUE_COMMAND}

and through the HTTP API:

  {HTTP_COMMAND}

Read the outcomes, as a consumer does:

  {OUTCOMES_COMMAND}

Make the local Huawei Cloud fail, by an outage or another fault of the list:

  curl -d outage "$LOCAL_CLOUDS_URL/fault"

{chr(10).join(faults)}

Show the functions' log lines here too; off instead of on ends it:

  curl -d on "$LOCAL_CLOUDS_URL/logs"

The endpoint services:

{chr(10).join(services)}

The API, the services and all that happens, on a page: {page}/

Calls to VPCEP and outcomes, until Ctrl-C:
"""


def _follow(monitor: Monitor, clouds: Clouds) -> None:
    """Print entries until the output is closed."""
    last = 0
    while not monitor.error:
        _raise_if_reader_left()
        for entry in monitor.after(last, seconds=0.5):
            if entry.number > last + 1:
                print(f"… {entry.number - last - 1} more")
            last = entry.number
            print(f"{time.strftime('%H:%M:%S', time.localtime(entry.time))}  {entry.kind:<8} {entry.text}")
    raise LocalAwsError(f"The local AWS has ended: {monitor.error}\n{clouds.aws.tail()}")


def _raise_if_reader_left() -> None:
    """While nothing is printed a broken pipe would not be noticed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLERR)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError


def _outcomes_queue(clouds: Clouds) -> str:
    """A queue of outcomes for the user, in addition to the one that this process reads; its URL."""
    url = tap(clouds.aws, clouds.stack.outputs["OutcomeBusName"], "outcomes", {"source": [OUTCOME_SOURCE]})
    attributes = {"VisibilityTimeout": "30", "MessageRetentionPeriod": str(OUTCOMES_KEPT_SECONDS)}
    clouds.aws.client("sqs").set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return url


def _let_operate(clouds: Clouds) -> None:
    """Permit the producer to read outcomes too, and to use the operator's command."""
    resources = {
        "sqs:ReceiveMessage": f"sqs:{REGION}:{ACCOUNT}:outcomes",
        "sqs:DeleteMessage": f"sqs:{REGION}:{ACCOUNT}:outcomes",
        "cloudformation:DescribeStacks": f"cloudformation:{REGION}:{ACCOUNT}:stack/{clouds.stack.name}/*",
        "cloudformation:DescribeStackResource": f"cloudformation:{REGION}:{ACCOUNT}:stack/{clouds.stack.name}/*",
        "cloudformation:DescribeStackResources": f"cloudformation:{REGION}:{ACCOUNT}:stack/{clouds.stack.name}/*",
        "logs:FilterLogEvents": f"logs:{REGION}:{ACCOUNT}:log-group:{clouds.stack.resources['OutcomeLog']}*",
        "lambda:InvokeFunction": f"lambda:{REGION}:{ACCOUNT}:function:{clouds.stack.resources['SettleDeadLetters']}*",
    }
    statements = [
        {"Effect": "Allow", "Action": action, "Resource": f"arn:aws:{resource}"}
        for action, resource in resources.items()
    ]
    clouds.aws.client("iam").put_user_policy(
        UserName="producer",
        PolicyName="operate",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
    )


if __name__ == "__main__":
    with quiet_end():
        sys.exit(main())
