"""A model of scale: how long a backlog takes to drain, what limits it, and what a million renames and a month cost.

`python -m tests.bench.scale` prints all as Markdown. Every number is a named constant or a field of `Deployment`, to be
replaced by other quotas, latencies or prices.

Lambda receives a FIFO queue's messages in batches of ten, at first five batches concurrently and 300 more a minute, up
to the event source's MaximumConcurrency, and never two batches of one message group at a time. SQS fills a batch from
one group as long as that has messages. A batch handles its groups concurrently and each group in order, so that it
takes the latency of the longest group, and the CPU time of all its renames at the memory size's share of a core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# ---- Lambda: docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html, configuration-memory.html
BATCH_SIZE = 10
FIRST_CONCURRENCY = 5
CONCURRENCY_A_SECOND = 300 / 60
MOST_CONCURRENCY = 1_000
MIB_OF_A_CORE = 1_769

# ---- Other default quotas, us-east-1
SQS_FIFO_REQUESTS_A_SECOND = 70_000  # high throughput, for each action
EVENTBRIDGE_ENTRIES_A_SECOND = 10_000

# ---- AWS list prices in US dollars, us-east-1, first tier, without free tier, as published in July 2025
LAMBDA_GB_SECOND = 0.0000166667
LAMBDA_REQUEST = 0.20e-6
SQS_FIFO_REQUEST = 0.50e-6
DYNAMODB_WRITE_UNIT = 0.625e-6
DYNAMODB_GB_MONTH = 0.25
DYNAMODB_BACKUP_GB_MONTH = 0.20
EVENTBRIDGE_ENTRY = 1.00e-6
ARCHIVE_GB = 0.10
ARCHIVE_GB_MONTH = 0.023
API_REQUEST = 3.50e-6
LOGS_GB = 0.50
XRAY_TRACE = 5.00e-6
CUSTOM_METRIC_MONTH = 0.30
ALARM_METRIC_MONTH = 0.10  # an alarm on metric math is charged for each metric in it
DASHBOARD_MONTH = 3.00
KMS_KEY_MONTH = 1.00
KMS_REQUEST = 3.00e-6
SECRET_MONTH = 0.40
SECRET_REQUEST = 5.00e-6

# ---- For each settled rename
AWS_CALLS = 3  # claim, settle, publish: one after another
EVENT_ITEM_BYTES = 1_100  # with the outcome
SERVICE_ITEM_BYTES = 200
LOG_BYTES = 580
LOG_BYTES_A_BATCH = 650  # START, END, REPORT and the metrics
ACCESS_LOG_BYTES = 450
ARCHIVED_BYTES = EVENT_ITEM_BYTES + 300  # with EventBridge's own fields
TRACED_SHARE = 0.05  # X-Ray's default rule, where it has more than a request a second to choose from
KEPT_MONTHS = 35 / 30

# ---- For any number of renames
METRICS = 12 + 20  # by name, and by kind and code where things fail
ALARMS = 17
ALARM_METRICS = 31
MONTH_SECONDS = 30 * 86_400
POLLED_QUEUES = 2
POLLERS = 5  # of an event source mapping whose queue is empty
POLL_SECONDS = 20
SECRET_SECONDS = 300  # an environment reads it again


@dataclass(frozen=True)
class Deployment:
    """A deployment and its surroundings.

    Attributes:
        max_concurrency: of the event source.
        memory_mib: of the function.
        services: how many endpoint services, and so message groups, the events are for; None for one each.
        huawei_calls_a_second: the gateway's quota for an API; VPCEP's own is not published.
        write_units_a_second: of the table; 4,000 for a new on-demand one, up to 40,000 for a warm one.
        huawei_seconds, aws_seconds: latency of one call.
        cpu_seconds: measured CPU time of one rename on a whole core.
        cold_start_seconds: once, before the first batch.
    """

    max_concurrency: int = 5
    memory_mib: int = 512
    services: int | None = None
    huawei_calls_a_second: float = 200.0
    write_units_a_second: float = 4_000.0
    huawei_seconds: float = 0.2
    aws_seconds: float = 0.01
    cpu_seconds: float = 0.003
    cold_start_seconds: float = 1.0

    def batch_seconds(self, renames: int = BATCH_SIZE, groups: int | None = None) -> float:
        """The time of a batch of so many renames, in so many groups; by default in a group each."""
        in_order = math.ceil(renames / (groups or renames))
        share = min(1.0, self.memory_mib / MIB_OF_A_CORE)
        return in_order * (self.huawei_seconds + AWS_CALLS * self.aws_seconds) + renames * self.cpu_seconds / share


@dataclass(frozen=True)
class Drain:
    """How a backlog drains.

    Attributes:
        rate: renames a second, at its highest.
        limit: which one applies.
    """

    seconds: float
    rate: float
    limit: str


def drain(events: int, deployment: Deployment) -> Drain:
    """Drain a backlog that is sent at once. Nothing fails, and nothing else is in the queue."""
    services = min(events, deployment.services or events)
    size = min(BATCH_SIZE, events)
    groups = max(1, min(size, size * services // events))
    of_one = size / deployment.batch_seconds(size, groups)
    most = min(deployment.max_concurrency, MOST_CONCURRENCY)
    limits = {
        "Huawei Cloud's quota": deployment.huawei_calls_a_second,
        "MaximumConcurrency": most * of_one,
        "order within a service": services / groups * of_one,
        "DynamoDB's write units": deployment.write_units_a_second / write_units(),
        "EventBridge's quota": EVENTBRIDGE_ENTRIES_A_SECOND,
        "SQS's quota": SQS_FIFO_REQUESTS_A_SECOND * size,
    }
    limit, rate = min(limits.items(), key=lambda item: item[1])
    # Concurrency grows linearly until the rate is reached.
    busy = rate / of_one
    first = min(FIRST_CONCURRENCY, busy)
    ramp = (busy - first) / CONCURRENCY_A_SECOND
    done_on_ramp = of_one * (first * ramp + CONCURRENCY_A_SECOND * ramp**2 / 2)
    if events < done_on_ramp:
        root = math.sqrt(first**2 + 2 * CONCURRENCY_A_SECOND * events / of_one)
        seconds, rate, limit = (root - first) / CONCURRENCY_A_SECOND, root * of_one, "Lambda's growth"
    else:
        seconds = ramp + (events - done_on_ramp) / rate
    # The time of one batch is the minimum.
    return Drain(deployment.cold_start_seconds + max(seconds, deployment.batch_seconds(size, groups)), rate, limit)


def write_units() -> int:
    """Of one settled rename: two transactions, each of the event's and of the service's item."""
    claim = _transactional(SERVICE_ITEM_BYTES) + _transactional(SERVICE_ITEM_BYTES)
    settle = _transactional(EVENT_ITEM_BYTES) + _transactional(SERVICE_ITEM_BYTES)
    return claim + settle


def _transactional(item_bytes: int) -> int:
    return 2 * math.ceil(item_bytes / 1024)


def prices(
    deployment: Deployment, batch_size: int, renames: int = 1_000_000, *, by_http: bool = False
) -> dict[str, float]:
    """US dollars for so many renames, part by part: through the queue in batches of this size, or by HTTP."""
    batches = renames / batch_size
    gb_seconds = batches * deployment.batch_seconds(batch_size) * deployment.memory_mib / 1024
    stored_gb = renames * EVENT_ITEM_BYTES / 2**30
    archived_gb = renames * ARCHIVED_BYTES / 2**30
    log_bytes = LOG_BYTES + (ACCESS_LOG_BYTES if by_http else 0)
    logs_gb = (renames * log_bytes + batches * LOG_BYTES_A_BATCH) / 2**30
    return {
        "DynamoDB, transactional writes": renames * write_units() * DYNAMODB_WRITE_UNIT,
        "DynamoDB, storage and backup for 35 days": stored_gb
        * KEPT_MONTHS
        * (DYNAMODB_GB_MONTH + DYNAMODB_BACKUP_GB_MONTH),
        "EventBridge, outcomes": renames * EVENTBRIDGE_ENTRY,
        "EventBridge, archive for 35 days": archived_gb * (ARCHIVE_GB + KEPT_MONTHS * ARCHIVE_GB_MONTH),
        "SQS, send one by one, receive and delete in batches": 0.0
        if by_http
        else (renames + 2 * batches) * SQS_FIFO_REQUEST,
        "API Gateway, requests": renames * API_REQUEST if by_http else 0.0,
        "Lambda, GB-seconds": gb_seconds * LAMBDA_GB_SECOND,
        "Lambda, requests": batches * LAMBDA_REQUEST,
        "CloudWatch, logs": logs_gb * LOGS_GB,
        "X-Ray, traces": batches * TRACED_SHARE * XRAY_TRACE,
    }


def monthly() -> dict[str, float]:
    """US dollars for a month without any rename, part by part."""
    polls = POLLED_QUEUES * POLLERS * MONTH_SECONDS / POLL_SECONDS
    reads = AS_DEPLOYED.max_concurrency * MONTH_SECONDS / SECRET_SECONDS
    return {
        f"CloudWatch, {METRICS} metrics": METRICS * CUSTOM_METRIC_MONTH,
        f"CloudWatch, {ALARM_METRICS} metrics in {ALARMS} alarms": ALARM_METRICS * ALARM_METRIC_MONTH,
        "CloudWatch, a dashboard": DASHBOARD_MONTH,
        f"SQS, {POLLERS} pollers at each of {POLLED_QUEUES} empty queues": polls * SQS_FIFO_REQUEST,
        "KMS, the alarm topic's key": KMS_KEY_MONTH,
        f"Secrets Manager, a secret, read by {AS_DEPLOYED.max_concurrency} environments": SECRET_MONTH
        + reads * SECRET_REQUEST,
        "KMS, requests for the secret": reads * KMS_REQUEST,
    }


AS_DEPLOYED = Deployment()
HTTP_AS_DEPLOYED = Deployment(memory_mib=1_024)
SCENARIOS = {
    "as deployed: 5 environments": AS_DEPLOYED,
    "50 environments": replace(AS_DEPLOYED, max_concurrency=50),
    "50 environments, ten services": replace(AS_DEPLOYED, max_concurrency=50, services=10),
    "every quota raised": replace(
        AS_DEPLOYED, max_concurrency=1_000, huawei_calls_a_second=10_000.0, write_units_a_second=40_000.0
    ),
}
BACKLOGS = tuple(10**power for power in range(3, 8))


def main() -> None:
    print(drain_table())
    print()
    print(price_table())


def drain_table() -> str:
    """Markdown: a row for each backlog, a column for each scenario."""
    lines = [f"| events | {' | '.join(SCENARIOS)} |", "|---:|" + "---|" * len(SCENARIOS)]
    for events in BACKLOGS:
        drains = [drain(events, deployment) for deployment in SCENARIOS.values()]
        cells = [f"{duration(it.seconds)}, {it.rate:.0f}/s: {it.limit}" for it in drains]
        lines.append(f"| {events:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def price_table() -> str:
    """Markdown: a row for each part, and then the parts of a month."""
    columns = (
        prices(AS_DEPLOYED, BATCH_SIZE),
        prices(AS_DEPLOYED, 1),
        prices(HTTP_AS_DEPLOYED, 1, by_http=True),
    )
    lines = ["| a million renames | in batches of ten | one by one | by HTTP |", "|---|---:|---:|---:|"]
    for part in columns[0]:
        cells = [f"${column[part]:.2f}" if column[part] else "" for column in columns]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append(f"| **together** | {' | '.join(f'**${sum(column.values()):.2f}**' for column in columns)} |")
    key = " | ".join([f"${1e6 * KMS_REQUEST:.2f}"] * len(columns))
    lines += [f"| with `KmsKeyArn`, at most: a KMS request an outcome | {key} |", ""]
    lines += ["| a month, however many | |", "|---|---:|"]
    lines += [f"| {part} | ${price:.2f} |" for part, price in monthly().items()]
    lines.append(f"| **together** | **${sum(monthly().values()):.2f}** |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    main()
