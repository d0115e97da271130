"""The process that opens an archive: `python -m domain.apps.unpacking ARCHIVE FOLDER`, under limits that it sets itself before it looks.

It writes one JSON object: `{"files": [[number, path, bytes, sha256]...]}`, or `{"refused": message}`.
"""

import json
import resource
import sys
from pathlib import Path

from domain.apps import archives

MEMORY_BYTES = 512 * 1024 * 1024
CPU_SECONDS = 60
OPEN_FILES = 32


def limit() -> None:
    """Take away from this process what reading an archive does not need."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (archives.LARGEST_FILE_BYTES + 1024**2,) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(archive: str, folder: str) -> None:
    """Unpack and tell."""
    limit()
    try:
        found = archives.unpack(Path(archive), Path(folder))
    except archives.Refused as refusal:
        told: dict[str, object] = {"refused": str(refusal)}
    except MemoryError:
        told = {"refused": "The archive takes too much memory to read."}
    except OSError as error:
        told = {"failed": error.strerror or type(error).__name__}
    else:
        told = {"files": [[each.number, each.path, each.bytes, each.sha256] for each in found]}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
