"""Reads the input of ``apply``, CSV or JSON Lines. Checks every line, and reports all problems at once."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cli.model import Line, UsageError, rename_event
from function.domain.envelopes import Attributes
from function.domain.event_parser import EventParser
from function.domain.model import InvalidEvent
from function.domain.strict_json import NotJsonError, load

REQUIRED: Final = ("vpc_endpoint_service_id", "endpoint_service_name")
OPTIONAL: Final = ("expected_name", "region", "project_id")
COLUMNS: Final = (*REQUIRED, *OPTIONAL)
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_LINES: Final = 100_000
MAX_PROBLEMS: Final = 100
_DELIMITERS: Final = (",", ";", "\t")
# Any valid values: they are not part of the input.
_ID, _TIME = "check", "2000-01-01T00:00:00Z"

Fields = dict[str, str | None]


class Input(NamedTuple):
    """
    Attributes:
        sha256: of the file, in hex.
    """

    sha256: str
    lines: list[Line]


def read_input(path: Path, violations: Callable[[Line], list[str]], default: tuple[str, str] = ("", "")) -> Input:
    """Read and check a file.

    Args:
        violations: returns further violations of a line.
        default: region and project of lines that name none.

    Raises:
        UsageError: names every problem with its line.
    """
    content = _content(path)
    text = _text(path, content)
    problems: list[str] = []
    parser = EventParser()
    lines: list[Line] = []
    seen: dict[tuple[str, str, str], int] = {}
    for number, fields in _rows(path, text, problems):
        line = Line(number, **fields)  # type: ignore[arg-type]
        found = [*schema_violations(line, parser), *violations(line)]
        problems += (f"line {number}: {violation}" for violation in dict.fromkeys(found))
        key = identity(line, default)
        if (first := seen.setdefault(key, number)) != number:
            problems.append(
                f"line {number}: the endpoint service {line.vpc_endpoint_service_id} is in line {first} too"
            )
        lines.append(line)
        if len(lines) > MAX_LINES:
            raise UsageError(f"{path} has more than {MAX_LINES:,} lines: split it.")
    if not lines and not problems:
        problems.append("there is no line with an endpoint service in it")
    if problems:
        raise UsageError(_told(path, problems))
    return Input(hashlib.sha256(content).hexdigest(), lines)


def identity(line: Line, default: tuple[str, str]) -> tuple[str, str, str]:
    """Equal for two lines that name the same endpoint service."""
    region, project_id = line.region or default[0], line.project_id or default[1]
    return region.casefold(), project_id.casefold(), line.vpc_endpoint_service_id.casefold()


def _told(path: Path, problems: list[str]) -> str:
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"and {len(problems) - MAX_PROBLEMS:,} more")
    what = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    return "\n  ".join([f"{path} has {what}; nothing has been renamed:", *shown])


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES // 2**20} MB: split it.")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _text(path: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path} is in UTF-16: save it as CSV in UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {number}: is not UTF-8. Save the file as CSV in UTF-8.") from None


def schema_violations(line: Line, parser: EventParser | None = None) -> Iterator[str]:
    """Violations of the event schema by a line."""
    text = json.dumps(rename_event(line, _ID, _TIME))
    attributes = Attributes(_ID, "/", _TIME, {})
    event = (parser or EventParser()).parse(text, attributes, structured=True, may_be_enveloped=False)
    if isinstance(event, InvalidEvent):
        for violation in event.violations:
            yield f"{violation.path.removeprefix('/data/')} {violation.message}"


def _rows(path: Path, text: str, problems: list[str]) -> Iterator[tuple[int, Fields]]:
    is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json") or text.lstrip().startswith("{")
    return _json_lines(text, problems) if is_json else _csv_rows(text, problems)


def _json_lines(text: str, problems: list[str]) -> Iterator[tuple[int, Fields]]:
    for number, row in enumerate(io.StringIO(text), start=1):
        if not row.strip():
            continue
        try:
            value = load(row)
        except NotJsonError as error:
            problems.append(f"line {number}: {error}")
            continue
        if not isinstance(value, dict):
            problems.append(f"line {number}: must be a JSON object")
            continue
        wrong = [
            *(f"has no {name}" for name in REQUIRED if not isinstance(value.get(name), str)),
            *(f"{name} must be text" for name in OPTIONAL if not isinstance(value.get(name), str | None)),
            *(f"has a field {name!r}, which is none of {', '.join(COLUMNS)}" for name in value if name not in COLUMNS),
        ]
        problems += (f"line {number}: {problem}" for problem in wrong)
        if not wrong:
            yield number, {name: value.get(name) for name in COLUMNS}


def _csv_rows(text: str, problems: list[str]) -> Iterator[tuple[int, Fields]]:
    first = text.partition("\n")[0].strip()
    skipped = 1 if first.lower().startswith("sep=") else 0  # Excel's own line
    if skipped:
        text = text.partition("\n")[2]
    delimiter = max(_DELIMITERS, key=next(iter(text.lstrip().splitlines()), "").count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    began = 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            problems.append(f"line {began + 1 + skipped}: is no CSV: {error}")
            return
        if row is None:
            return
        number, began = began + 1 + skipped, reader.line_num
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if columns is None:
            columns = cells
            if wrong := _wrong_header(columns):
                problems.append(f"line {number}: {wrong}")
                return
        elif len(cells) > len(columns) and any(cells[len(columns) :]):
            problems.append(f"line {number}: has {len(cells)} fields, and the header has {len(columns)}")
        else:
            given = dict(zip(columns, cells, strict=False))
            if not given.get(REQUIRED[0]) or REQUIRED[1] not in given:
                problems.append(f"line {number}: has no {REQUIRED[1] if given.get(REQUIRED[0]) else REQUIRED[0]}")
                continue
            # CSV cannot distinguish an empty field from none. Only a new name may be empty: it removes the name.
            optional = {name: given.get(name) or None for name in OPTIONAL}
            yield number, {**{name: given[name] for name in REQUIRED}, **optional}


def _wrong_header(columns: list[str]) -> str | None:
    if missing := [name for name in REQUIRED if name not in columns]:
        form = f"{','.join(REQUIRED)}[,{'][,'.join(OPTIONAL)}]"
        return f"is the header, and lacks {' and '.join(missing)}. It must be: {form}"
    if unknown := [name for name in columns if name and name not in COLUMNS]:
        return f"has a column {unknown[0]!r}, which is none of {', '.join(COLUMNS)}"
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        return f"has the column {twice[0]} twice"
    return None
