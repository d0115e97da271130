"""Files of rows: CSV (RFC 4180), JSON Lines, and Apache Parquet, written piece by piece in memory that does not grow with the file."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from domain.usage.tables import Cell, Column, Kind
from models.enums import ExportFormat

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula when a text begins with it (OWASP, CSV injection)."""
GROUP_ROWS = 50_000


class Files:
    """Fulfils `domain.usage.exports.Files`."""

    def write(self, format: ExportFormat, columns: Sequence[Column], rows: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
        """Give the file's bytes; every format has the same cells, and amounts of money are exact in all."""
        match format:
            case ExportFormat.CSV:
                return _csv(columns, rows)
            case ExportFormat.JSON_LINES:
                return _json_lines(columns, rows)
            case ExportFormat.PARQUET:
                return _parquet(columns, rows)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _written(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "true" if cell else "false"
        case datetime():
            return _instant(cell)
        case Decimal():
            return format(cell, "f")
        case str():
            return f"'{cell}" if cell.startswith(FORMULA) else cell
    return str(cell)


async def _csv(columns: Sequence[Column], rows: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
    def lines(some: list[Any]) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows([_written(column.read(row)) for column in columns] for row in some)
        return text.getvalue().encode()

    yield (",".join(column.name for column in columns) + "\r\n").encode()
    async for some in rows:
        yield await asyncio.to_thread(lines, some)


async def _json_lines(columns: Sequence[Column], rows: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
    def value(cell: Cell) -> object:
        return _instant(cell) if isinstance(cell, datetime) else format(cell, "f") if isinstance(cell, Decimal) else cell

    def lines(some: list[Any]) -> bytes:
        return b"".join(msgspec.json.encode({column.name: value(column.read(row)) for column in columns}) + b"\n" for row in some)

    async for some in rows:
        yield await asyncio.to_thread(lines, some)


async def _parquet(columns: Sequence[Column], rows: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
    import pyarrow  # fifty MiB that only a process which writes such a file has to hold
    import pyarrow.parquet

    types = {
        Kind.TEXT: pyarrow.string(),
        Kind.INTEGER: pyarrow.int64(),
        Kind.DOLLARS: pyarrow.decimal128(38, 6),
        Kind.INSTANT: pyarrow.timestamp("ms", tz="UTC"),
        Kind.BOOLEAN: pyarrow.bool_(),
    }
    schema = pyarrow.schema([pyarrow.field(column.name, types[column.kind]) for column in columns])
    sink = _Sink()

    def table(some: list[Any]) -> None:
        arrays = [pyarrow.array([column.read(row) for row in some], type=types[column.kind]) for column in columns]
        writer.write_table(pyarrow.table(arrays, schema=schema))

    writer = pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd")
    waiting: list[Any] = []
    async for some in rows:
        waiting += some
        if len(waiting) >= GROUP_ROWS:
            await asyncio.to_thread(table, waiting)
            waiting = []
            yield sink.take()
    if waiting:
        await asyncio.to_thread(table, waiting)
    await asyncio.to_thread(writer.close)
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that is only ever appended to, and emptied by whoever sends it on."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, piece: Any, /) -> int:
        self._pieces.append(bytes(piece))
        self._written += len(self._pieces[-1])
        return len(self._pieces[-1])

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken
