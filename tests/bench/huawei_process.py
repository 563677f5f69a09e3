"""A local Huawei Cloud in a process of its own, so that its CPU time is not that of the benchmark.

`python -m tests.bench.huawei_process SERVICES SECONDS` prints its URL and ends when its standard input closes.
"""

import sys

from tests.localcloud.stack import local_huawei


def service_id(number: int) -> str:
    """Of an endpoint service that exists."""
    return f"00000000-0000-4000-8000-{number:012}"


def main(services: int, delay: float) -> None:
    with local_huawei() as cloud:
        for number in range(services):
            cloud.add_service(service_id(number))
        if delay:
            cloud.fail(kind="slow", delay=delay, times=None, on="any")
        print(cloud.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
