"""Receipts from the books alone: swept, late, written off, released and open calls; synchronous, because it turns the clock."""

import dataclasses
from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from domain.access.callers import Caller
from domain.access.limits import BoundInput
from domain.errors import NotFound
from domain.money.amounts import PICO_PER_MICRO
from domain.serving import receipts
from domain.serving.calls import AttemptMade, Consumption
from domain.serving.receipts import CallState, ClampReason, FundingSource, Receipt
from models import database
from models.enums import Bucket, HoldState, Measure, Role, Scope, TokenCountSource, TransferKind, UsageOutcome
from models.ids import uuid7
from tests.money.own_books import OwnBooks
from tests.serving.openings import calls, ending, listed, opening, sign, used
from tests.serving.test_quotas import subscriber, tier, tool
from tests.serving.test_settlement import adjust
from tests.support.world import Tenant, tenant


async def _equal_to_the_ledger(receipt: Receipt) -> None:
    """Check every amount of a receipt against the rows that it tells of."""
    row = await database.fetch_row(
        """
        SELECT h.amount, h.charge_microusd, h.charge_picousd, (SELECT sum(v.charge_microusd)::bigint FROM usage_event v WHERE v.record_id = h.call_id) AS used,
               (SELECT sum(v.list_microusd)::bigint FROM usage_event v WHERE v.record_id = h.call_id) AS list,
               (SELECT coalesce(sum(CASE WHEN d.kind = 'cash' THEN t.amount ELSE -t.amount END), 0)::bigint FROM transfer t JOIN account d ON d.id = t.debit_id
                  JOIN account c ON c.id = t.credit_id WHERE t.call_id = h.call_id AND 'cash' IN (d.kind, c.kind)) AS paid,
               (SELECT count(*) FROM transfer t WHERE t.call_id = h.call_id) AS transfers
          FROM hold h WHERE h.call_id = $1
        """,
        receipt.call_id,
    )
    assert row is not None
    assert receipt.hold.amount_microusd == row["amount"]
    assert receipt.charge_microusd == (row["charge_microusd"] or 0) == (row["used"] or 0)
    assert receipt.charge_picousd == (row["charge_picousd"] or 0)
    assert receipt.list_microusd == (row["list"] or 0)
    assert sum(part.amount_microusd for part in receipt.funding) == row["paid"]
    assert len(receipt.transfers) == row["transfers"]
    assert sum(line.line.picousd for line in receipt.lines) == receipt.charge_picousd
    assert all(line.line.quantity * line.line.row.picousd == line.line.picousd for line in receipt.lines)


def test_a_receipt_follows_a_call_from_its_admission_to_its_end(own: OwnBooks) -> None:
    """Admitted, running, settled: the hold, its growth, the charge of 10 + 2 x 80 microdollars and the transfer that took it."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100, instalment=50)
        admitted = await process.admit(asked)
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.state, receipt.outcome, receipt.charge_microusd) == (CallState.ADMITTED, None, 0)
        assert (receipt.attempts, receipt.lines, receipt.transfers, receipt.clamp) == ((), (), (), None)
        assert (receipt.timings.received_at, receipt.timings.settled_at) == (asked.created_at, None)
        assert (receipt.hold.amount_microusd, receipt.hold.state, receipt.hold.extensions) == (110, HoldState.OPEN, 0)
        await process.keep(sign(asked, mine.workspace_id, used(10, 40), output_tokens=100))
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.state, receipt.hold.amount_microusd, receipt.hold.extensions) == (CallState.RUNNING, 210, 1)
        await process.settle(ending(admitted, price, used(10, 80)))
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.state, receipt.outcome, receipt.model, receipt.price) == (CallState.SETTLED, UsageOutcome.SUCCEEDED, "echo", price)
        assert {line.line.bucket: line.line.quantity for line in receipt.lines} == {Bucket.UNCACHED_INPUT: 10, Bucket.OUTPUT: 80}
        assert (receipt.charge_microusd, receipt.charge_picousd) == (170, 170 * PICO_PER_MICRO)
        (part,) = receipt.funding
        assert (part.source, part.amount_microusd, part.transfer) == (FundingSource.CASH, 170, receipt.transfers[0])
        (attempt,) = receipt.attempts
        assert (attempt.number, attempt.charged, attempt.outcome, attempt.http_status) == (1, True, UsageOutcome.SUCCEEDED, 200)
        assert receipt.timings.settled_at == receipt.hold.closed_at
        await _equal_to_the_ledger(receipt)

    own.run(work())


def test_a_released_call_is_abandoned_and_has_moved_nothing(own: OwnBooks) -> None:
    """A call that delivered nothing: no line, no transfer, no model; the hold is shown as it was."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        end = replace(ending(admitted, price, Consumption()), outcome=UsageOutcome.CANCELLED, http_status=None, error_code="client_gone")
        await process.settle(end)
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.state, receipt.outcome, receipt.error_code, receipt.model) == (CallState.ABANDONED, UsageOutcome.CANCELLED, "client_gone", None)
        assert (receipt.lines, receipt.transfers, receipt.funding, receipt.hold.amount_microusd) == ((), (), (), 210)
        assert receipt.timings.last_byte_at is None
        await _equal_to_the_ledger(receipt)

    own.run(work())


def test_a_swept_call_shows_what_its_last_progress_said(own: OwnBooks) -> None:
    """F17: nobody settled it: its try says `interrupted`, with what it used and cost as far as is known, and so does the call; the charge is 10 + 2 x 4."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        process = calls(own.book)
        await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(10, 4)))
        await own.expire(asked.id)
        await calls(own.book).sweep()
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.state, receipt.outcome, receipt.error_code) == (CallState.SETTLED, UsageOutcome.FAILED, "interrupted")
        (cut,) = receipt.attempts
        assert (cut.number, cut.upstream, cut.outcome, cut.http_status, cut.error_code, cut.charged) == (1, "echo", UsageOutcome.FAILED, None, "interrupted", False)
        assert (cut.quantities, cut.source) == ({Bucket.UNCACHED_INPUT: 10, Bucket.OUTPUT: 4}, TokenCountSource.ESTIMATE)
        assert cut.cost_picousd == receipt.upstream_cost_picousd == 18 * 10**6
        assert receipt.charge_microusd == 18
        assert {line.line.bucket: line.line.quantity for line in receipt.lines} == {Bucket.UNCACHED_INPUT: 10, Bucket.OUTPUT: 4}
        await _equal_to_the_ledger(receipt)

    own.run(work())


@pytest.mark.parametrize("output", [50, 2, 4])
def test_a_late_settlement_is_one_charge_with_its_difference_in_the_transfers(own: OwnBooks, output: int) -> None:
    """Swept at 18, settled at 10 + 2 x output: the charge and the payer's part are the final ones, and both transfers are listed."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await process.keep(sign(asked, mine.workspace_id, used(10, 4)))
        await own.expire(asked.id)
        await calls(own.book).sweep()
        await process.settle(ending(admitted, price, used(10, output)))
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert receipt.charge_microusd == 10 + 2 * output
        assert receipt.outcome is UsageOutcome.SUCCEEDED
        kinds = [transfer.kind for transfer in receipt.transfers]
        assert kinds == [TransferKind.CHARGE, *([] if output == 4 else [TransferKind.LATE])]
        assert [part.amount_microusd for part in receipt.funding] == [10 + 2 * output]
        await _equal_to_the_ledger(receipt)

    own.run(work())


def test_what_was_written_off_is_in_the_transfers_and_in_nobodys_part(own: OwnBooks) -> None:
    """A charge of 170 of which 20 were there: the payer's part is 20, and the transfers name the 150 that the service bears."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=300), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        admitted = await process.admit(asked)
        await adjust(mine, -280)
        await process.settle(ending(admitted, price, used(10, 80)))
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.charge_microusd, [part.amount_microusd for part in receipt.funding]) == (170, [20])
        assert [(transfer.kind, transfer.amount) for transfer in receipt.transfers] == [(TransferKind.CHARGE, 20), (TransferKind.WRITE_OFF, 150)]
        await _equal_to_the_ledger(receipt)

    own.run(work())


def test_a_clamp_names_what_was_asked_and_what_was_given(own: OwnBooks) -> None:
    """A balance of 70 affords 30 tokens of output after 10 of input: asked 100, given 30, because of the balance."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=70), listed(own.book, "echo")
        asked = opening(mine.secret, price, input_tokens=10, max_output=100)
        await calls(own.book).admit(asked)
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert receipt.clamp is not None
        assert (receipt.clamp.requested, receipt.clamp.allowed, receipt.clamp.reason) == (100, 30, ClampReason.BALANCE)

    own.run(work())


def test_each_try_says_why_and_only_the_last_is_charged(own: OwnBooks) -> None:
    """F17: a failed try with usage of its own, then the one that answered: reasons, tokens, costs; the lines and the charge are the answer's alone."""

    async def work() -> None:
        mine, price = await tenant(credit_microusd=1000), listed(own.book, "echo")
        process = calls(own.book)
        asked = opening(mine.secret, price, input_tokens=10, max_output=100, requested_model="auto", route_reason="auto: cheapest that fits")
        admitted = await process.admit(asked)
        now = datetime.now(UTC)
        failed = AttemptMade(uuid7(), 1, "one", "up-a", UsageOutcome.FAILED, 529, "upstream_529", now, None, now, consumption=used(7, 0))
        answered = AttemptMade(uuid7(), 2, "two", "up-b", UsageOutcome.SUCCEEDED, 200, None, now, now, now, reason="fallback")
        await process.settle(replace(ending(admitted, price, used(10, 20)), provider="two", attempts=(failed, answered)))
        receipt = await receipts.find(mine.caller(), asked.id, own.book)
        assert (receipt.requested_model, receipt.model_reason) == ("auto", "auto: cheapest that fits")
        assert [(each.number, each.reason, each.charged, each.cost_microusd, each.error_code) for each in receipt.attempts] == [
            (1, "first", False, 7, "upstream_529"),
            (2, "fallback", True, 50, None),
        ]
        assert receipt.upstream_cost_microusd == 57
        assert {line.line.bucket: line.line.quantity for line in receipt.lines} == {Bucket.UNCACHED_INPUT: 10, Bucket.OUTPUT: 20}
        await _equal_to_the_ledger(receipt)

    own.run(work())


def test_a_quota_pays_nothing_and_says_so(own: OwnBooks) -> None:
    """A subscription key's call: charge 0, list value 50, the payer a quota, no transfer, nothing held in money."""

    async def work() -> None:
        mine, secret = await subscriber(tier("plain", ("tokens", "24h", 1000)), credit_microusd=500)
        process = calls(own.book)
        admitted = await process.admit(tool(own, secret, input_tokens=10, max_output=100))
        await process.settle(ending(admitted, listed(own.book, "echo"), used(10, 20)))
        receipt = await receipts.find(mine.caller(), admitted.call_id, own.book)
        assert (receipt.charge_microusd, receipt.list_microusd, receipt.hold.amount_microusd, receipt.transfers) == (0, 50, 0, ())
        assert [(part.source, part.amount_microusd, part.transfer) for part in receipt.funding] == [(FundingSource.QUOTA, 0, None)]

    own.run(work())


def test_a_clamp_by_a_bound_names_it(own: OwnBooks) -> None:
    """A budget of 70 lowers the output as a balance of 70 does, and is what is named; so is a limit on tokens."""

    async def work() -> None:
        for bound, reason, allowed in (
            ({"budgets": (BoundInput(Measure.MONEY, "day", 70),)}, ClampReason.BUDGET, 30),
            ({"limits": (BoundInput(Measure.TOKENS, "day", 70),)}, ClampReason.QUOTA, 60),
        ):
            mine, price = await tenant(credit_microusd=1000, **bound), listed(own.book, "echo")
            asked = opening(mine.secret, price, input_tokens=10, max_output=100)
            await calls(own.book).admit(asked)
            receipt = await receipts.find(mine.caller(), asked.id, own.book)
            assert receipt.clamp is not None
            assert (receipt.clamp.allowed, receipt.clamp.reason) == (allowed, reason)

    own.run(work())


async def _sees(caller: Caller, call_id: UUID, own: OwnBooks) -> bool:
    try:
        return (await receipts.find(caller, call_id, own.book)).call_id == call_id
    except NotFound:
        return False


def test_who_may_see_a_receipt(own: OwnBooks) -> None:
    """F30: the key that made it, whatever it may else do; with USAGE_READ_ALL anybody of the workspace; nobody else, wherever from."""

    async def work() -> None:
        mine, other, price = await tenant(credit_microusd=1000), await tenant(), listed(own.book, "echo")
        key, secret = await mine.mint(scopes=frozenset({Scope.INFERENCE}))
        second, _ = await mine.mint(scopes=frozenset({Scope.USAGE_READ}))
        asked = opening(secret, price, input_tokens=1, max_output=1)
        await calls(own.book).admit(asked)

        def as_key(of: Tenant, key_id: UUID, *scopes: Scope) -> Caller:
            return Caller(at=datetime.now(UTC), workspace_id=of.workspace_id, name="key", scopes=frozenset(scopes), role=Role.DEVELOPER, key_id=key_id)

        assert await _sees(as_key(mine, key.id, Scope.INFERENCE), asked.id, own)
        assert await _sees(as_key(mine, second.id, Scope.USAGE_READ, Scope.USAGE_READ_ALL), asked.id, own)
        assert await _sees(mine.caller(), asked.id, own)
        assert not await _sees(as_key(mine, second.id, Scope.USAGE_READ), asked.id, own)
        assert not await _sees(as_key(mine, second.id, Scope.USAGE_READ_ALL), asked.id, own)
        assert not await _sees(other.caller(), asked.id, own)
        assert not await _sees(as_key(other, key.id, *Scope), asked.id, own)
        assert not await _sees(mine.caller(), uuid7(), own)
        nobody = dataclasses.replace(mine.caller(), scopes=frozenset())
        assert not await _sees(nobody, asked.id, own)

    own.run(work())
