"""Opening archives of strangers in a process that can be spared."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

from domain.apps.archives import Unpacked
from domain.errors import InvalidInput, Unavailable
from domain.outside import before_calling

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 90.0


class Unpacker:
    """Fulfils `domain.apps.uploads.Unpacker`; `seconds` is how long an archive may take."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds

    async def unpack(self, archive: Path, into: Path) -> list[Unpacked]:
        """Write an archive's files into a folder, and say what they are; both paths are absolute.

        Raises InvalidInput, naming the entry, for an archive that is not taken, and Unavailable when the disk is full.
        """
        before_calling("the unpacker")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "domain.apps.unpacking", str(archive), str(into)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
        )
        try:
            async with asyncio.timeout(self._seconds):
                written, _ = await process.communicate()
        except TimeoutError:
            raise InvalidInput("The archive takes too long to read.", path=("files",)) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        try:
            told = json.loads(written)
        except ValueError:  # a limit ended the process before it could say why
            raise InvalidInput("The archive takes too much to read.", path=("files",)) from None
        if "failed" in told:
            raise Unavailable("The gateway has no room for this archive right now; nothing was changed.", retry_after_seconds=30)
        if "refused" in told:
            raise InvalidInput(str(told["refused"]), path=("files",))
        return [Unpacked(*each) for each in told["files"]]
