"""Exports: whole files in every format, with the rights of whoever asked, behind a link that only we can sign."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx2
import pyarrow.parquet
import pytest

from clients.exports import Files
from clients.storage import Storage
from domain import duties
from domain.audit import AuditFilter
from domain.errors import IdempotencyConflict, InvalidInput, MissingScope, NotFound, Unavailable
from domain.money.ledger import StatementFilter
from domain.pages import Page
from domain.usage import exports, records, tables
from domain.usage.exports import ExportView, Report, Source
from domain.usage.metrics import Dimension, UsageFilter
from domain.usage.records import RecordFilter
from domain.usage.windows import Granularity, RelativeRange, resolve
from models import database
from models.enums import ExportColumns, ExportFormat, JobStatus, Scope
from tests.conftest import SECRET
from tests.support.calling import until
from tests.support.gateway import Gateway
from tests.support.world import Tenant, tenant

pytestmark = pytest.mark.anyio


def report(*by: Dimension, **more: Any) -> Report:
    """The last seven days in UTC."""
    return Report(resolve(RelativeRange.LAST_7_DAYS, "UTC", datetime.now(UTC)), by=by, **more)


async def call(gateway: Gateway, of: Tenant, text: str = "four", **more: Any) -> None:
    """Make one call of `echo`: a token in and one out for every four characters, at 1 and 2 microdollars."""
    body = {"model": "echo", "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as http:
        answer = await http.post("/v1/messages", json=body, headers=of.bearer)
    assert answer.status_code == 200, answer.text


async def made(of: Tenant, source: Source, format: ExportFormat = ExportFormat.CSV, columns: ExportColumns = ExportColumns.NATIVE) -> ExportView:
    """Ask for an export, and wait for the gateway's worker to make it."""
    caller = of.caller()
    asked = await exports.create(caller, source, format, columns, None)

    async def look() -> list[ExportView]:
        found = await exports.find(caller, asked.id)
        return [found] if found.status in (JobStatus.SUCCEEDED, JobStatus.FAILED) else []

    return (await until(look, "the export's end"))[0]


def link(gateway: Gateway, export: ExportView, *, secret: str = SECRET) -> str:
    """The export's link, signed."""
    assert export.expires_at is not None
    return f"{gateway.url}/exports/{export.id}/{export.name}?signature={exports.signature(secret, export.id, export.expires_at)}"


async def content(gateway: Gateway, export: ExportView) -> bytes:
    """Download a whole export."""
    assert export.status is JobStatus.SUCCEEDED, export
    async with httpx2.AsyncClient(timeout=60) as http:
        answer = await http.get(link(gateway, export))
    assert answer.status_code == 200
    assert len(answer.content) == export.bytes
    return answer.content


async def test_records_are_the_same_in_every_format(gateway: Gateway) -> None:
    """CSV, JSON Lines and Parquet have the same rows, oldest first, and their charges add up to what the balance lost."""
    mine = await tenant(credit_microusd=1_000_000)
    for text in ("four", "eight888", "twelve121212"):
        await call(gateway, mine, text)
    files = {format: await made(mine, RecordFilter(), format) for format in ExportFormat}
    assert {export.rows for export in files.values()} == {3}
    plain = list(csv.DictReader(io.StringIO((await content(gateway, files[ExportFormat.CSV])).decode())))
    lines = [json.loads(line) for line in (await content(gateway, files[ExportFormat.JSON_LINES])).splitlines()]
    parquet = pyarrow.parquet.read_table(io.BytesIO(await content(gateway, files[ExportFormat.PARQUET]))).to_pylist()
    assert [int(row["costMicroUsd"]) for row in plain] == [row["costMicroUsd"] for row in lines] == [row["costMicroUsd"] for row in parquet]
    assert sum(row["costMicroUsd"] for row in parquet) == 1_000_000 - (await mine.balance()).balance
    found = await records.page(mine.caller(), Page(), ascending=True)
    assert [row["id"] for row in plain] == [row["id"] for row in lines] == [row["id"] for row in parquet] == [str(record.id) for record in found.items]
    assert [row["createdAt"] for row in plain] == [row["createdAt"] for row in lines]
    assert [row["createdAt"] for row in parquet] == [record.at.replace(microsecond=record.at.microsecond // 1000 * 1000) for record in found.items]
    assert list(plain[0]) == list(lines[0]) == list(parquet[0]) == [column.name for column in tables.RECORDS]
    assert (plain[0]["model"], plain[0]["outcome"], plain[0]["errorCode"], plain[0]["streamed"]) == ("echo", "SUCCEEDED", "", "false")


async def test_a_report_has_a_row_for_each_bucket_and_group(gateway: Gateway) -> None:
    """Without dimensions every bucket has a row; with them every group that used something; both add up to the range."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine)
    await call(gateway, mine, "eight888")
    spent = 1_000_000 - (await mine.balance()).balance
    whole = [json.loads(line) for line in (await content(gateway, await made(mine, report(), ExportFormat.JSON_LINES))).splitlines()]
    assert len(whole) == 7
    assert (sum(row["costMicroUsd"] for row in whole), sum(row["requests"] for row in whole)) == (spent, 2)
    split = [json.loads(line) for line in (await content(gateway, await made(mine, report(Dimension.MODEL, Dimension.APP), ExportFormat.JSON_LINES))).splitlines()]
    assert [(row["model"], row["app"], row["costMicroUsd"]) for row in split] == [("echo", None, spent)]
    assert split[0]["start"] == whole[-1]["start"]


async def test_focus_columns_add_up_to_the_same_money(gateway: Gateway) -> None:
    """FOCUS has exact decimal dollars: records, report and statement agree with the ledger."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine)
    await call(gateway, mine, "eight888")
    spent = Decimal(1_000_000 - (await mine.balance()).balance).scaleb(-6)
    of_records = pyarrow.parquet.read_table(io.BytesIO(await content(gateway, await made(mine, RecordFilter(), ExportFormat.PARQUET, ExportColumns.FOCUS))))
    assert sum(of_records["BilledCost"].to_pylist()) == spent
    assert set(of_records["ChargeCategory"].to_pylist()) == {"Usage"}
    assert of_records["BillingAccountId"].to_pylist() == [str(mine.workspace_id)] * 2
    text = (await content(gateway, await made(mine, report(Dimension.MODEL), columns=ExportColumns.FOCUS))).decode()
    assert sum(Decimal(row["BilledCost"]) for row in csv.DictReader(io.StringIO(text))) == spent
    statement = (await content(gateway, await made(mine, StatementFilter(), columns=ExportColumns.FOCUS))).decode()
    rows = list(csv.DictReader(io.StringIO(statement)))
    assert sum(Decimal(row["BilledCost"]) for row in rows if row["ChargeCategory"] == "Usage") == spent
    assert -sum(Decimal(row["BilledCost"]) for row in rows) == Decimal((await mine.balance()).balance).scaleb(-6)
    assert list(rows[0]) == [column.name for column in tables.STATEMENT_FOCUS]


async def test_the_statement_is_exported_with_its_running_balance(gateway: Gateway) -> None:
    """Every transfer is a row, and the last one's balance is the balance."""
    mine = await tenant(credit_microusd=500_000)
    await call(gateway, mine)
    rows = list(csv.DictReader(io.StringIO((await content(gateway, await made(mine, StatementFilter()))).decode())))
    assert [row["kind"] for row in rows] == ["ADJUSTMENT", "CHARGE"]
    assert int(rows[-1]["balanceAfterMicroUsd"]) == (await mine.balance()).balance
    assert sum(int(row["changeMicroUsd"]) for row in rows) == (await mine.balance()).balance


async def test_a_spreadsheet_gets_no_formula(gateway: Gateway) -> None:
    """A text that a spreadsheet would run is written as text; JSON Lines has it as it is."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine, metadata={"user_id": '=HYPERLINK("http://evil")'})
    text = (await content(gateway, await made(mine, RecordFilter()))).decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["endUserId"] == "'=HYPERLINK(\"http://evil\")"
    (line,) = (await content(gateway, await made(mine, RecordFilter(), ExportFormat.JSON_LINES))).splitlines()
    assert json.loads(line)["endUserId"] == '=HYPERLINK("http://evil")'


async def test_a_download_that_broke_off_goes_on(gateway: Gateway) -> None:
    """A range gives that part, an open one the rest, a suffix the end; one beyond the end is refused; the parts are the whole."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine)
    export = await made(mine, RecordFilter())
    whole = await content(gateway, export)
    url, size = link(gateway, export), export.bytes
    async with httpx2.AsyncClient(timeout=60) as http:
        first = await http.get(url, headers={"range": "bytes=0-99"})
        rest = await http.get(url, headers={"range": "bytes=100-"})
        end = await http.get(url, headers={"range": "bytes=-10"})
        beyond = await http.get(url, headers={"range": f"bytes={size}-"})
        changed = await http.get(url, headers={"range": "bytes=0-9", "if-range": '"another"'})
        head = await http.head(url)
    assert (first.status_code, first.headers["content-range"]) == (206, f"bytes 0-99/{size}")
    assert first.content + rest.content == whole
    assert end.content == whole[-10:]
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert (changed.status_code, changed.content) == (200, whole)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
    assert head.headers["content-disposition"] == f'attachment; filename="{export.name}"'


async def test_a_link_works_until_its_week_is_over_and_cannot_be_forged(gateway: Gateway) -> None:
    """Another secret's signature, another export's, none at all, and the right one after a week: 404, and the file is deleted."""
    mine = await tenant(credit_microusd=1_000_000)
    first, second = await made(mine, RecordFilter()), await made(mine, RecordFilter())
    assert first.expires_at is not None
    assert abs(first.expires_at - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=5)
    good = link(gateway, first)
    swapped = good.replace(str(first.id), str(second.id))
    async with httpx2.AsyncClient(timeout=60) as http:
        statuses = [(await http.get(url)).status_code for url in (good, swapped, link(gateway, first, secret="another"), good.partition("?")[0])]
        assert statuses == [200, 404, 404, 404]
        await database.fetch("UPDATE export SET expires_at = clock_timestamp() WHERE id = $1", first.id)
        assert (await http.get(good)).status_code == 404


async def test_files_are_deleted_after_their_week(books: Any, tmp_path: Any) -> None:
    """What is expired goes from the store; the export stays, without a link."""
    mine = await tenant()
    store = Storage.in_folder(tmp_path)
    export_id, duty = await claimed(mine, RecordFilter())
    await exports.make(duty, Files(), store, at=datetime.now(UTC))
    (name,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    await database.fetch("UPDATE export SET expires_at = clock_timestamp() WHERE id = $1", export_id)
    while await exports.expire(store):
        pass
    assert not name.exists()
    assert (await exports.find(mine.caller(), export_id)).object is None


async def claimed(of: Tenant, source: Source, format: ExportFormat = ExportFormat.CSV) -> tuple[UUID, duties.Duty]:
    """Queue an export out of the gateway's reach, and claim it here."""
    async with database.transaction():
        asked = await exports.create(of.caller(), source, format, ExportColumns.NATIVE, None)
        job = await database.fetch_row(
            """
            UPDATE job SET status = 'running', tries = 1, leased_until = clock_timestamp() + interval '1 hour', next_at = clock_timestamp() + interval '1 hour'
             WHERE payload ->> 'export_id' = $1 RETURNING id, workspace_id, kind, tries
            """,
            str(asked.id),
        )
    assert job is not None
    return asked.id, duties.Duty(job["id"], job["workspace_id"], job["kind"], {"export_id": str(asked.id)}, job["tries"])


class Full:
    """A store that takes some bytes and then breaks."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def put(self, key: str, content: AsyncIterator[bytes]) -> None:
        """Take the first piece."""
        async for _ in content:
            raise self.error

    async def delete(self, keys: Any) -> None:
        """Take nothing away."""


async def test_a_store_that_is_away_is_tried_again_and_then_told(books: Any, tmp_path: Any) -> None:
    """A file that cannot be kept is no export: the job is put back, and after the last try the export has failed with a reason."""
    mine = await tenant()
    export_id, duty = await claimed(mine, RecordFilter())
    away = Full(Unavailable("The store of files is away."))
    for _ in range(exports.MOST_TRIES - 1):
        with pytest.raises(Unavailable):
            await exports.make(duty, Files(), away, at=datetime.now(UTC))
        assert (await exports.find(mine.caller(), export_id)).status is JobStatus.RUNNING
    await exports.make(duty, Files(), away, at=datetime.now(UTC))
    failed = await exports.find(mine.caller(), export_id)
    assert (failed.status, failed.failure_code, failed.failure, failed.object) == (JobStatus.FAILED, "unavailable", "The store of files is away.", None)


async def test_a_worker_that_lost_its_lease_changes_nothing(books: Any, tmp_path: Any) -> None:
    """When another worker has taken the job over, what the first one makes does not count: the other one's file does."""
    mine = await tenant()
    export_id, duty = await claimed(mine, StatementFilter())
    store = Storage.in_folder(tmp_path)
    await database.fetch("UPDATE job SET tries = 2 WHERE id = $1", duty.id)
    await exports.make(duty, Files(), store, at=datetime.now(UTC))
    assert (await exports.find(mine.caller(), export_id)).status is JobStatus.RUNNING
    second = duties.Duty(duty.id, duty.workspace_id, duty.kind, duty.payload, 2)
    await exports.make(second, Files(), store, at=datetime.now(UTC))
    whole = await exports.find(mine.caller(), export_id)
    assert (whole.status, whole.rows) == (JobStatus.SUCCEEDED, 0)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    await exports.make(second, Files(), store, at=datetime.now(UTC))
    assert await exports.find(mine.caller(), export_id) == whole


async def test_many_rows_are_read_in_pages(gateway: Gateway) -> None:
    """Rows beyond one reading come in order, each once, also while calls are written."""
    mine = await tenant(credit_microusd=1_000_000)
    await call(gateway, mine)
    await database.fetch(
        """
        INSERT INTO usage_event SELECT (jsonb_populate_record(e, jsonb_build_object('id', n.id, 'record_id', n.id))).*
          FROM usage_event e, LATERAL (SELECT uuidv7() AS id FROM generate_series(1, $2)) n WHERE e.workspace_id = $1
        """,
        mine.workspace_id,
        2 * exports.ROWS_AT_ONCE + 5,
    )
    export, _ = await asyncio.gather(made(mine, RecordFilter(), ExportFormat.JSON_LINES), call(gateway, mine))
    found = [json.loads(line)["id"] for line in (await content(gateway, export)).splitlines()]
    assert len(found) == len(set(found)) == export.rows >= 2 * exports.ROWS_AT_ONCE + 6
    assert found == sorted(found)


async def test_an_export_reads_what_its_maker_may(gateway: Gateway) -> None:
    """A key without USAGE_READ_ALL exports its own calls alone, sees its own exports alone, and no statement without BILLING_READ."""
    mine = await tenant(credit_microusd=1_000_000)
    key, secret = await mine.mint(name="narrow", scopes=frozenset({Scope.INFERENCE, Scope.USAGE_READ}))
    await call(gateway, mine)
    await made(mine, RecordFilter())
    narrow = Tenant(mine.workspace_id, mine.owner, mine.owner_email, key, secret)
    await call(gateway, narrow, "eight888")
    caller = await _caller(secret)
    asked = await exports.create(caller, RecordFilter(), ExportFormat.JSON_LINES, ExportColumns.NATIVE, None)

    async def look() -> list[ExportView]:
        return [each for each in (await exports.page(caller, Page())).items if each.status is JobStatus.SUCCEEDED]

    (export,) = await until(look, "the narrow key's only export")
    assert export.id == asked.id
    (line,) = (await content(gateway, export)).splitlines()
    assert json.loads(line)["apiKeyId"] == str(key.id)
    with pytest.raises(MissingScope):
        await exports.create(caller, StatementFilter(), ExportFormat.CSV, ExportColumns.NATIVE, None)


async def _caller(secret: str) -> Any:
    from domain.access import callers

    found = await callers.identify(secret, None, sessions=None, open_signup=False, at=datetime.now(UTC))  # type: ignore[arg-type]  # a key needs no issuer
    assert found is not None
    return found


async def test_what_cannot_be_asked_is_refused_at_once(books: Any) -> None:
    """Too many dimensions, a tag without a name, too many buckets, too many exports at once, another workspace's export: refused, nothing queued."""
    mine, other = await tenant(), await tenant()
    caller = mine.caller()
    four = report(Dimension.MODEL, Dimension.APP, Dimension.API_KEY, Dimension.LANGUAGE)
    for source in (four, report(Dimension.TAG)):
        with pytest.raises(InvalidInput):
            await exports.create(caller, source, ExportFormat.CSV, ExportColumns.NATIVE, None)
    assert await exports.count(caller) == 0
    export_id, _ = await claimed(mine, RecordFilter())
    with pytest.raises(NotFound):
        await exports.find(other.caller(), export_id)
    for _ in range(exports.MOST_OPEN - 1):
        await claimed(mine, RecordFilter())
    with pytest.raises(InvalidInput):
        await exports.create(caller, RecordFilter(), ExportFormat.CSV, ExportColumns.NATIVE, None)
    assert await exports.count(caller) == exports.MOST_OPEN


async def test_a_repeated_key_is_one_export(books: Any) -> None:
    """The same idempotency key and question return the first export, also a moment later; another question is refused."""
    mine = await tenant()
    caller = mine.caller()
    first = await exports.create(caller, report(), ExportFormat.CSV, ExportColumns.NATIVE, "e1")
    again = await exports.create(caller, report(), ExportFormat.CSV, ExportColumns.NATIVE, "e1")
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict):
        await exports.create(caller, report(granularity=Granularity.HOUR), ExportFormat.CSV, ExportColumns.NATIVE, "e1")
    with pytest.raises(IdempotencyConflict):
        await exports.create(caller, report(filter=UsageFilter(models=("echo",))), ExportFormat.CSV, ExportColumns.NATIVE, "e1")
    assert await exports.count(caller) == 1


async def test_the_audit_log_is_exported(gateway: Gateway) -> None:
    """AUDIT_EVENTS: who did what, with the changes as JSON; FOCUS has no columns for it, and it needs AUDIT_READ."""
    mine = await tenant()
    await mine.mint(name="traced")
    caller = mine.caller(Scope.AUDIT_READ)
    asked = await exports.create(caller, AuditFilter(actions=("apiKey",)), ExportFormat.JSON_LINES, ExportColumns.NATIVE, None)

    async def look() -> list[ExportView]:
        found = await exports.find(caller, asked.id)
        return [found] if found.status is JobStatus.SUCCEEDED else []

    (export,) = await until(look, "the audit log")
    lines = [json.loads(line) for line in (await content(gateway, export)).splitlines()]
    assert [(line["action"], json.loads(line["changes"])["name"]) for line in lines] == [("apiKey.create", [None, "first"]), ("apiKey.create", [None, "traced"])]
    with pytest.raises(InvalidInput):
        await exports.create(caller, AuditFilter(), ExportFormat.CSV, ExportColumns.FOCUS, None)
    _, secret = await mine.mint(name="blind", scopes=frozenset({Scope.USAGE_READ}))
    with pytest.raises(MissingScope):
        await exports.create(await _caller(secret), AuditFilter(), ExportFormat.CSV, ExportColumns.NATIVE, None)
