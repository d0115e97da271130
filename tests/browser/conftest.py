"""One browser for all stories, and the example chat as a first run deploys it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.support import chromium
from tests.support.chromium import Browser
from tests.support.gateway import ROOT, Gateway


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """The browser of this machine."""
    program = chromium.find()
    assert program is not None, "stories are left out where there is no browser"
    async with chromium.browsing(program) as started:
        yield started


@dataclass(frozen=True, slots=True)
class Chat:
    """The example chat: where it is, and the key of the workspace that pays for it."""

    url: str
    key: str


@pytest.fixture(scope="session")
async def chat(gateway: Gateway) -> Chat:
    """The chat, made by the command that `make run` starts."""
    command = [sys.executable, "-m", "manage", "demo"]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=gateway.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return Chat(told["chat_url"], told["api_key"])
