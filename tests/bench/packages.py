"""The three packages that are compared, built as for deployment."""

from __future__ import annotations

import compileall
import hashlib
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from py_compile import PycInvalidationMode

from tests.localcloud.aws import ROOT, build, run_sam, sam_environment
from tests.localcloud.lambda_runtime import _RUNTIME_PACKAGES, BASE_PYTHON

BENCH = ROOT / ".build" / "bench"
SOURCES = Path(__file__).parent
BUILD_SECONDS = 600.0


@dataclass(frozen=True)
class Package:
    """A built deployment package."""

    name: str
    directory: Path
    handler: str

    def zipped_bytes(self) -> int:
        """Its size as `sam package` uploads it."""
        with tempfile.TemporaryFile() as archive:
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
                for path in sorted(self.directory.rglob("*")):
                    if path.is_file():
                        zipped.writestr(str(path.relative_to(self.directory)), path.read_bytes())
            return archive.tell()

    def holds_bytecode(self) -> bool:
        return any(self.directory.rglob("*.pyc"))


def ours() -> Package:
    """The function, built by `sam build`. A copy, since the next build overwrites it."""
    built = build().parent / "RenameFromQueue"
    directory = BENCH / "ours"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(built, directory)
    return Package("ours", directory, "function.app.handler")


def peer() -> Package:
    return Package("peer", _others() / "Peer", "app.handler")


def floor() -> Package:
    return Package("floor", _others() / "Floor", "app.handler")


def compile_runtime() -> None:
    """Compile the packages of Lambda's runtime, which have bytecode there; pip has not compiled them here."""
    for name in _RUNTIME_PACKAGES:
        spec = find_spec(name)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin and origin.name == "__init__.py":
            compileall.compile_dir(origin.parent, quiet=2)
        elif origin and origin.suffix == ".py":
            compileall.compile_file(origin, quiet=2)


def _others() -> Path:
    """The peer and the floor, built by `sam build`, unless their sources are unchanged."""
    directory, record = BENCH / "others", BENCH / "others.built-from"
    digest = _digest()
    if not record.exists() or record.read_text() != digest:
        record.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as home:
            environment = sam_environment(Path(home))
            # The SAM CLI looks there for the Python of the function's runtime.
            environment["PATH"] = f"{Path(BASE_PYTHON).parent}:{environment['PATH']}"
            run_sam(
                "build",
                *("--template-file", str(SOURCES / "template.yml"), "--build-dir", str(directory)),
                *("--no-build-in-source", "--parameter-overrides", "PythonVersion={}.{}".format(*sys.version_info)),
                environment=environment,
                seconds=BUILD_SECONDS,
            )
        package = directory / "Floor"
        compileall.compile_dir(
            package,
            quiet=2,
            stripdir=str(package),
            prependdir="/var/task",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
        record.write_text(digest)
    return directory


def _digest() -> str:
    digest = hashlib.sha256(sys.version.encode())
    schema = ROOT / "function/contract/rename-event.schema.json"
    sources = [*SOURCES.glob("peer/*"), *SOURCES.glob("floor/*"), schema]
    for path in sorted([ROOT / "requirements.txt", SOURCES / "template.yml", *filter(Path.is_file, sources)]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
