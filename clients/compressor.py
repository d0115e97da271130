"""Making content smaller once, when it is deployed, so that no answer has to."""

import gzip

import brotli

WORTH_BYTES = 256
"""Smaller content fits into one packet either way."""
DEAR_BYTES = 2 * 1024 * 1024
LARGEST_SHARE = 0.95


class Compressor:
    """Fulfils `domain.apps.blobs.Compressor`."""

    def smaller(self, content: bytes) -> tuple[bytes | None, bytes | None]:
        """Return content in gzip and in brotli, None for an encoding that saves less than a twentieth; the same content gives the same bytes."""
        if len(content) < WORTH_BYTES:
            return None, None
        most = len(content) * LARGEST_SHARE
        dear = len(content) > DEAR_BYTES
        zipped = gzip.compress(content, 6 if dear else 9, mtime=0)
        shrunk = brotli.compress(content, quality=5 if dear else 9)
        return zipped if len(zipped) < most else None, shrunk if len(shrunk) < most else None
