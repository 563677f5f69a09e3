"""What `apply` makes of a file: each form that people have, and every problem at once with its line."""

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from cli.input_file import MAX_PROBLEMS, Input, read_input
from cli.model import Line, UsageError

HEADER = "vpc_endpoint_service_id,endpoint_service_name"


def write(directory: Path, content: str | bytes, name: str = "names.csv") -> Path:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(directory: Path, content: str | bytes, name: str = "names.csv", default: tuple[str, str] = ("", "")) -> Input:
    return read_input(write(directory, content, name), lambda line: [], default)


def lines(directory: Path, content: str | bytes, name: str = "names.csv") -> list[Line]:
    return read(directory, content, name).lines


def problems(directory: Path, content: str | bytes, name: str = "names.csv") -> list[str]:
    with pytest.raises(UsageError) as raised:
        lines(directory, content, name)
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\none,orders\n\ntwo,billing\n",
        f"\ufeff{HEADER}\r\none,orders\r\n\r\ntwo,billing\r\n",
        f"{HEADER.replace(',', ';')}\none;orders\n;\ntwo;billing",
        f"sep=;\n{HEADER.replace(',', ';')}\none;orders\ntwo;billing",
        f"{HEADER.replace(',', chr(9))}\none\torders\n \ntwo\tbilling\n",
        f'{HEADER}\n"one","orders"\n\n"two", billing \n',
        f"{HEADER},region,expected_name\none,orders\n\ntwo,billing,,\n",
    ],
    ids=["commas", "bom-crlf", "semicolons", "excel", "tabs", "quotes", "optional-columns"],
)
def test_csv_of_each_dialect_is_read(tmp_path: Path, content: str) -> None:
    found = lines(tmp_path, content)

    assert [(line.vpc_endpoint_service_id, line.endpoint_service_name) for line in found] == [
        ("one", "orders"),
        ("two", "billing"),
    ]
    assert found[0][3:] == found[1][3:] == (None, None, None)


def test_csv_columns_are_read_in_any_order(tmp_path: Path) -> None:
    content = "project_id,region,expected_name,endpoint_service_name,vpc_endpoint_service_id\np,cn-north-4,old,new,id\n"

    assert lines(tmp_path, content) == [Line(2, "id", "new", "old", "cn-north-4", "p")]


def test_json_lines_are_read(tmp_path: Path) -> None:
    content = (
        '\n{"vpc_endpoint_service_id": "one", "endpoint_service_name": "orders", "region": null}\n'
        '{"vpc_endpoint_service_id": "two", "endpoint_service_name": "", "project_id": "p"}\n'
    )

    assert lines(tmp_path, content, "names.jsonl") == [Line(2, "one", "orders"), Line(3, "two", "", None, None, "p")]


def test_sha256_is_of_the_bytes_of_the_file(tmp_path: Path) -> None:
    content = f"\ufeff{HEADER}\r\none,orders\r\n".encode()

    assert read(tmp_path, content).sha256 == hashlib.sha256(content).hexdigest()


def test_all_problems_of_a_csv_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    content = f'{HEADER},region\n"o\nne",orders\n\ntwo,not a name\nthree,x,Cn\nfour,a,cn-north-4,more\n,x\nfive\n'

    found = problems(tmp_path, content)

    assert [problem.partition(":")[0] for problem in found] == [f"line {n}" for n in (2, 5, 6, 7, 8, 9)]
    assert "vpc_endpoint_service_id" in found[0]
    assert "endpoint_service_name" in found[1]
    assert "region" in found[2]
    assert "4 fields" in found[3]
    assert found[4:] == ["line 8: has no vpc_endpoint_service_id", "line 9: has no endpoint_service_name"]


def test_all_problems_of_json_lines_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    content = (
        '{"vpc_endpoint_service_id": "one"}\n[]\n{\n{"vpc_endpoint_service_id": "a", "endpoint_service_name": 1}\n'
        '{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "name": "c", "region": 1}\n'
        '{"vpc_endpoint_service_id": "a", "vpc_endpoint_service_id": "b", "endpoint_service_name": "b"}\n'
    )

    found = problems(tmp_path, content, "names.ndjson")

    assert [problem.partition(":")[0] for problem in found] == [f"line {n}" for n in (1, 2, 3, 4, 5, 5, 6)]


@pytest.mark.parametrize("second", ["ONE,b,,", "one,b,cn-north-4,", "One,b,,P"])
def test_service_that_comes_twice_is_reported_with_both_lines(tmp_path: Path, second: str) -> None:
    content = f"{HEADER},region,project_id\none,a,,\nother,c,,\n{second}\n"

    with pytest.raises(UsageError) as raised:
        read(tmp_path, content, default=("cn-north-4", "p"))

    [_, problem] = str(raised.value).splitlines()
    assert "line 4: " in problem
    assert problem.endswith("is in line 2 too")


def test_one_id_in_two_projects_or_regions_is_two_services(tmp_path: Path) -> None:
    content = f"{HEADER},region,project_id\none,a,,\none,a,cn-north-1,\none,a,,q\n"

    assert len(read(tmp_path, content, default=("cn-north-4", "p")).lines) == 3


def test_line_that_the_settings_forbid_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEADER}\none,a\n")

    with pytest.raises(UsageError, match="line 2: must not"):
        read_input(path, lambda line: ["must not"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HEADER}\n".encode("utf-16"), "UTF-16"),
        (f"{HEADER}\none,\n".encode() + b"tw\xff,x\n", "line 3: is not UTF-8"),
        ("one,orders\n", "line 1: is the header, and lacks vpc_endpoint_service_id and endpoint_service_name"),
        (f"{HEADER},name\n", "'name', which is none of"),
        (f"{HEADER},region,region\n", "has the column region twice"),
        (f'{HEADER}\none,orders\n"two,x\n', "line 3: is no CSV"),
        (f"{HEADER}\n\n", "there is no line"),
        ("", "there is no line"),
    ],
)
def test_malformed_input_file_is_a_usage_error(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        lines(tmp_path, content)


def test_missing_input_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_input(tmp_path / "none.csv", lambda line: [])


def test_list_of_problems_is_cut_after_the_most_that_are_shown(tmp_path: Path) -> None:
    found = problems(tmp_path, HEADER + "\n" + "a b,c\n" * (MAX_PROBLEMS + 50))

    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].endswith("more")


def test_reading_ten_thousand_lines_takes_less_than_30_mebibytes(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "\n" + "".join(f"{n:08}-8a62-448e-89ed-f2cbde8e6a3b,n{n}\n" for n in range(10_000)))
    read(tmp_path, f"{HEADER}\none,a\n", "warm.csv")

    tracemalloc.start()
    found = read_input(path, lambda line: [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(found.lines) == 10_000
    assert peak < 30 * 2**20
