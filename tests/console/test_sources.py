"""What the page's sources may name: exact versions, and no host."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from console.build import DIST, NODE_VERSIONS, SOURCE

ROOT = SOURCE.parent


def _json(name: str) -> Any:
    return json.loads((SOURCE / name).read_bytes())


def test_the_lock_names_no_host() -> None:
    """Packages are locked by version and hash, so that they may come from any registry; the lock names none."""
    text = (SOURCE / "package-lock.json").read_text()
    assert re.findall(r"https?://|git\+|\"resolved\"", text) == []
    packages = {path: package for path, package in _json("package-lock.json")["packages"].items() if path}
    assert [path for path, package in packages.items() if not re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package["integrity"])] == []


def test_no_package_runs_code_when_it_is_installed() -> None:
    """No locked package has an install script, and npm is told to run none."""
    assert [path for path, package in _json("package-lock.json")["packages"].items() if package.get("hasInstallScript")] == []
    settings = (SOURCE / ".npmrc").read_text().splitlines()
    assert "ignore-scripts=true" in settings
    assert "omit-lockfile-registry-resolved=true" in settings


def test_versions_are_exact_and_the_lock_has_the_same() -> None:
    """Every package of ours is pinned to one version, which is the one that the lock installs."""
    package, lock = _json("package.json"), _json("package-lock.json")["packages"]
    for kind in ("dependencies", "devDependencies"):
        assert lock[""][kind] == package[kind]
        for name, version in package[kind].items():
            assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
            assert lock[f"node_modules/{name}"]["version"] == version


def test_the_lock_builds_on_every_machine_that_we_promise() -> None:
    """The native parts of Vite are locked for glibc Linux on x86_64 and aarch64, not only for the machine that wrote the lock."""
    lock = _json("package-lock.json")["packages"]
    for machine in ("linux-x64-gnu", "linux-arm64-gnu"):
        assert f"node_modules/@rolldown/binding-{machine}" in lock
        assert f"node_modules/lightningcss-{machine}" in lock


def test_the_build_asks_for_the_node_that_the_package_file_asks_for() -> None:
    """The versions of node that the build accepts are those of package.json, and of the Vite that is locked."""
    assert _json("package.json")["engines"]["node"] == NODE_VERSIONS
    assert _json("package-lock.json")["packages"]["node_modules/vite"]["engines"]["node"] == NODE_VERSIONS


@pytest.mark.parametrize("path", sorted((SOURCE / "graphiql").iterdir()), ids=lambda path: path.name)
def test_the_page_names_no_other_origin(path: Path) -> None:
    """The page's own sources load nothing from elsewhere: the only address in them is the name of SVG's namespace."""
    assert set(re.findall(r"(?:https?:|[\"'(])//[^\"'\s)]*", path.read_text())) <= {"http://www.w3.org/2000/svg"}


def test_what_is_built_is_not_committed() -> None:
    """Git ignores the built page and the packages that it is built from."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert f"{DIST.relative_to(ROOT).as_posix()}/" in ignored
    assert "console/node_modules/" in ignored
