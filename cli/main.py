"""The command line: arguments and exit statuses."""

import json
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypedDict, Unpack

import click

from cli import bootstrap
from cli.bulk import Bulk
from cli.display import Display
from cli.input_file import COLUMNS, read_input, schema_violations
from cli.model import Line, Outcome, Renamer, StoppedError, UsageError, rename_event
from cli.results_file import SUFFIX, ResultsFile
from cli.runner import Pace, interruptible, retry
from function.domain.model import rfc3339
from function.domain.outcomes import RENAMED
from function.domain.service_calls import short_name

FAILED, WRONG, INTERRUPTED = 1, 2, 130
MAX_PARALLEL = 100
_FILE = click.Path(path_type=Path, dir_okay=False)

Command = Callable[..., Any]


def main() -> NoReturn:
    """The entry point: prints one sentence per error, and exits with the documented status."""
    try:
        sys.exit(commands.main(prog_name="vpcep-rename", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(WRONG)
    except UsageError as error:
        Display(json=True).note(f"Error: {error}")
        sys.exit(WRONG)
    except StoppedError as error:
        Display(json=True).note(f"Error: {error}")
        sys.exit(FAILED)
    except (KeyboardInterrupt, click.Abort):
        Display(json=True).note("Stopped. Progress is saved: run the same command again to continue.")
        sys.exit(INTERRUPTED)


def _options(*options: Command) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_way = _options(
    click.option("--stack", metavar="NAME", help="Go through the API of this deployed stack."),
    click.option("--api-url", metavar="URL", help="URL of the API: the stack's output RenameApiUrl."),
)
_bulk = _options(
    click.option("--dry-run", is_flag=True, help="Show old → new and what would fail; change nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print outcomes as JSON Lines."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    click.option(
        "--parallel", type=click.IntRange(1, MAX_PARALLEL), default=10, show_default=True, help="Renames at once."
    ),
)


class _Bulk(TypedDict):
    """The options of ``_bulk`` and ``_way``."""

    dry_run: bool
    as_json: bool
    yes: bool
    parallel: int
    stack: str | None
    api_url: str | None


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""Exit status: 0 all done; 1 something failed; 2 an option, a setting or a file is wrong; 130 Ctrl-C.""",
)
@click.version_option(package_name="vpcep-rename")
def commands() -> None:
    """Rename VPC endpoint services of Huawei Cloud.

    Uses the key in the environment (HUAWEICLOUD_REGION, HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK,
    HUAWEICLOUD_SDK_PROJECT_ID), or a deployed stack with your AWS credentials.

    \b
    Examples:
      vpcep-rename list --csv > names.csv
      vpcep-rename apply names.csv --dry-run
      vpcep-rename apply names.csv
      vpcep-rename undo names.results.csv
      vpcep-rename rename 070c4a63-8a62-448e-89ed-f2cbde8e6a3b orders --stack vpcep-rename
    """


@commands.command()
@click.argument("service_id")
@click.argument("new_name")
@click.option("--expect", metavar="NAME", help="Rename only if its current name is NAME.")
@click.option("--region", metavar="REGION", help="Another region than HUAWEICLOUD_REGION, or the stack's.")
@click.option("--project", metavar="ID", help="Another project than the key's own.")
@click.option("--dry-run", is_flag=True, help="Show old → new, or what would fail; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@_way
def rename(
    service_id: str,
    new_name: str,
    *,
    expect: str | None,
    region: str | None,
    project: str | None,
    dry_run: bool,
    as_json: bool,
    stack: str | None,
    api_url: str | None,
) -> int:
    """Rename one endpoint service.

    \b
    Examples:
      vpcep-rename rename 070c4a63-8a62-448e-89ed-f2cbde8e6a3b orders --expect billing
      vpcep-rename rename 070c4a63-8a62-448e-89ed-f2cbde8e6a3b orders --stack vpcep-rename --dry-run
    """
    display, pace = Display(json=as_json), Pace()
    line = Line(1, service_id, new_name, expect, region, project)
    renamer = _renamer(display, pace, stack, api_url, parallel=1)
    if wrong := [*schema_violations(line), *renamer.violations(line)]:
        raise UsageError("; ".join(wrong))
    event = rename_event(line, str(uuid.uuid4()), rfc3339(datetime.now(UTC)))
    with interruptible(pace):
        if dry_run:
            preview = retry(lambda: renamer.preview(event), lambda preview: preview.problem, pace)
            if preview.problem is not None:
                display.say(f"{service_id} would fail: {preview.problem}")
                return INTERRUPTED if pace.stopping.is_set() else FAILED
            display.say(f"{service_id}: {preview.service_name!r} → {new_name!r}. A dry run: nothing has been changed.")
            return 0
        answer = retry(lambda: renamer.rename(event), lambda answer: answer.problem, pace)
    unsettled = INTERRUPTED if pace.stopping.is_set() else FAILED
    if answer.outcome is not None:
        display.outcome(answer.outcome)
    if answer.problem is not None:
        display.say(f"{service_id} failed: {answer.problem}")
        return unsettled
    if answer.outcome is None:
        display.say(f"{service_id} is in the queue of the stack, as event {event['id']}, without an outcome yet.")
        return unsettled
    display.say(_renamed(answer.outcome))
    return 0


@commands.command()
@click.argument("file", type=_FILE)
@click.option("--results", type=_FILE, metavar="FILE", help="The results file. [default: next to FILE]")
@_bulk
@_way
def apply(file: Path, *, results: Path | None, **options: Unpack[_Bulk]) -> int:
    """Rename the endpoint services in FILE, a CSV or JSON Lines.

    The header of a CSV has the columns vpc_endpoint_service_id and endpoint_service_name, and optionally expected_name,
    region and project_id. The fields of JSON Lines have the same names.

    All lines are checked before anything is renamed. The plan and the results are written to a results file. If that
    file exists, the command continues where it stopped.

    \b
    Examples:
      vpcep-rename apply names.csv --dry-run
      vpcep-rename apply names.csv --stack vpcep-rename --yes
    """
    display = _display(options)
    bulk = _bulk_of(display, options)
    given = read_input(file, bulk.renamer.violations, bulk.renamer.default)
    with interruptible(bulk.pace):
        if options["dry_run"]:
            return bulk.apply(given, None, yes=options["yes"])
        path = results or file.with_name(file.stem + SUFFIX)
        with ResultsFile(path) as opened:
            return bulk.apply(given, opened, yes=options["yes"])


@commands.command()
@click.argument("file", type=_FILE, metavar="RESULTS", required=False)
@click.option("--results", type=_FILE, metavar="FILE", help="The same as RESULTS.")
@_bulk
@_way
def undo(file: Path | None, *, results: Path | None, **options: Unpack[_Bulk]) -> int:
    """Revert the renames of an apply, from its RESULTS file.

    Services that have been renamed since are skipped. Reverted lines are marked in the file.

    \b
    Example:
      vpcep-rename undo names.results.csv
    """
    path = file or results
    if path is None or (file and results and file != results):
        raise UsageError("Name one results file, as RESULTS or by --results.")
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    display = _display(options)
    with ResultsFile(path) as opened:
        if opened.is_new:
            raise UsageError(f"{path} is empty: it is no results file of vpcep-rename.")
        bulk = _bulk_of(display, options)
        with interruptible(bulk.pace):
            return bulk.undo(opened, yes=options["yes"], dry_run=options["dry_run"])


@commands.command(name="list")
@click.option("--region", metavar="REGION", help="Another region than HUAWEICLOUD_REGION.")
@click.option("--project", metavar="ID", help="Another project than the key's own.")
@click.option("--csv", "as_csv", is_flag=True, help="As a CSV to edit and apply.")
@click.option("--json", "as_json", is_flag=True, help="As JSON Lines.")
def list_services(*, region: str | None, project: str | None, as_csv: bool, as_json: bool) -> int:
    """List all endpoint services with their names, directly from Huawei Cloud.

    \b
    Example: edit the column endpoint_service_name, then apply the file.
      vpcep-rename list --csv > names.csv
    """
    display = Display()
    direct = bootstrap.direct(parallel=1)
    if not direct.knows_region(region):
        raise UsageError("--region: VPCEP is not known to be available there.")
    services = direct.services(region, project)
    if as_csv:
        print(",".join(COLUMNS))  # noqa: T201 - a file, not a text
        for own_region, own_project, service_id, name, _ in services:
            print(f"{service_id},{name},{name},{own_region},{own_project}")  # noqa: T201
    elif as_json:
        for own_region, own_project, service_id, name, status in services:
            values = {"vpc_endpoint_service_id": service_id, "endpoint_service_name": name, "status": status}
            print(json.dumps(values | {"region": own_region, "project_id": own_project}))  # noqa: T201
    else:
        rows = [(service_id, name, status) for _, _, service_id, name, status in services]
        display.table(("id", "name", "status"), rows)
        display.note("1 endpoint service" if len(rows) == 1 else f"{len(rows):,} endpoint services")
    return 0


@commands.command()
@click.option("--stack", metavar="NAME", required=True, help="The deployed stack.")
@click.option("--json", "as_json", is_flag=True, help="Print the log's lines, which are JSON, as they are.")
@click.option("--since", type=click.IntRange(min=0), default=0, metavar="MINUTES", help="Begin so many minutes ago.")
@click.option("--no-follow", is_flag=True, help="Print what there is, and end.")
def watch(*, stack: str, as_json: bool, since: int, no_follow: bool) -> int:
    """Show the outcomes of a stack as they are published, from its log of outcomes (the parameter OutcomeLogDays).

    Outcomes of invalid events are not in that log.

    \b
    Example:
      vpcep-rename watch --stack vpcep-rename --since 60
    """
    display, pace = Display(json=as_json), Pace()
    with interruptible(pace):
        lines = bootstrap.deployed(stack).watch(
            since=time.time() - 60 * since, stopping=pace.stopping, follow=not no_follow
        )
        for line in lines:
            if as_json:
                print(line, flush=True)  # noqa: T201 - as it is
            else:
                display.say(_logged(line))
    return INTERRUPTED if pace.stopping.is_set() else 0


@commands.command()
@click.option("--stack", metavar="NAME", required=True, help="The deployed stack.")
def redrive(*, stack: str) -> int:
    """Move the dead letters of a stack back to its rename queue.

    Events that were settled in the meantime are not renamed again.

    \b
    Example:
      vpcep-rename redrive --stack vpcep-rename
    """
    moved = sum(bootstrap.deployed(stack).redrive())
    Display().say(
        "1 dead letter is back in the queue." if moved == 1 else f"{moved:,} dead letters are back in the queue."
    )
    return 0


def _display(options: _Bulk) -> Display:
    """
    Raises:
        UsageError: confirmation is needed, and there is no terminal to ask on.
    """
    display = Display(json=options["as_json"])
    if not (options["yes"] or options["dry_run"]):
        display.must_answer()
    return display


def _bulk_of(display: Display, options: _Bulk) -> Bulk:
    pace, parallel = Pace(), options["parallel"]
    renamer = _renamer(display, pace, options["stack"], options["api_url"], parallel=parallel)
    return Bulk(renamer, display, pace, parallel)


def _renamer(display: Display, pace: Pace, stack: str | None, api_url: str | None, *, parallel: int) -> Renamer:
    renamer = bootstrap.renamer(pace, stack=stack, api_url=api_url, parallel=parallel)
    for note in renamer.notes:
        display.note(note)
    return renamer


def _renamed(outcome: Outcome) -> str:
    data = outcome["data"]
    old = short_name(data.get("previous_service_name"))
    was = "" if old is None else f"{old!r} → "
    return f"{data['vpc_endpoint_service_id']}: {was}{data['endpoint_service_name']!r}"


def _logged(line: str) -> str:
    try:
        logged = json.loads(line)
        what = "renamed to" if logged["outcome_type"] == RENAMED else f"failed ({logged['error_code']}):"
        return f"{logged['time']}  {logged['vpc_endpoint_service_id']}  {what} {logged['endpoint_service_name']!r}"
    except (ValueError, KeyError, TypeError):
        return line
