"""The operator's side: the books, the service's accounts, every workspace, every change, and jobs that were given up; operations over HTTP with real data."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.money import books
from models import database
from models.ids import uuid7
from schema import ids
from tests.schema.serving import Served
from tests.schema.test_operations import answer, run

pytestmark = pytest.mark.anyio

WORKSPACES = """
query Workspaces($search: String, $first: Int, $after: String) {
  operator {
    workspaces(first: $first, after: $after, search: $search) {
      totalCount pageInfo { hasNextPage endCursor } nodes { id name credits { balance { microUsd } } billing { tier { name } } members { totalCount } }
    }
  }
}
"""
FAILED = "query Failed($first: Int! = 20) { operator { failedJobs(first: $first) { function jobId tries status failure { code message retryable } } } }"
RETRY = "mutation Retry($id: String!) { jobRetry(input: { jobId: $id }) { job { function jobId status tries failure { code } } userErrors { code message path } } }"


async def give_up(workspace_id: UUID | None, *, finished_at: datetime | None = None) -> UUID:
    """A job that failed as often as it may."""
    job_id, now = uuid7(), datetime.now(UTC)
    await database.fetch(
        """
        INSERT INTO job (id, workspace_id, kind, payload, status, tries, next_at, created_at, finished_at, failure)
        VALUES ($1, $2, 'tests.nothing', '{}', 'failed', 20, $3, $3, $4, 'the mail server said no')
        """,
        job_id,
        workspace_id,
        now,
        finished_at or now,
    )
    return job_id


async def test_the_books_and_the_service_s_accounts_are_told(served: Served) -> None:
    """Operator_Books: every check by its stable name, the service's accounts with what came in since, and changes of every workspace."""
    boss, mine = await served.operator(), await served.owner()
    before = {each["kind"]: each["balance"]["usd"] for each in (await run(served, "Operator_Books", boss))["operator"]["ledgerAccounts"]}
    await served.credit(mine, 2_500_000)
    await run(served, "S0_KeyCreate", mine.session)
    told = (await run(served, "Operator_Books", boss))["operator"]
    assert [check["name"] for check in told["books"]["checks"]][: len(books.CHECKS)] == [name for name, _ in books.CHECKS.values()]
    assert told["books"]["sound"] == all(check["sound"] for check in told["books"]["checks"])
    assert all(check["sound"] == (check["broken"] == 0) for check in told["books"]["checks"])
    after = {each["kind"]: each["balance"]["usd"] for each in told["ledgerAccounts"]}
    assert set(after) == {"PAYMENTS", "REVENUE", "PROMOTIONS", "BREAKAGE", "DISPUTES", "ADJUSTMENTS", "WRITE_OFFS", "FEES", "SUSPENSE"}
    assert sum(float(after[kind]) - float(before[kind]) for kind in after) == pytest.approx(-2.5)
    assert {"action": "apiKey.create", "workspace": {"name": "Olive Owner's lab"}} in told["auditEvents"]["nodes"]


async def test_an_account_of_the_service_is_refetched_by_operators_only(served: Served) -> None:
    """The id that the list shows names the same account; to a customer it names nothing."""
    boss, mine = await served.operator(), await served.owner()
    listed = (await served.ask("{ operator { ledgerAccounts { id kind } } }", credential=boss)).data["operator"]["ledgerAccounts"]
    revenue = next(each["id"] for each in listed if each["kind"] == "REVENUE")
    question = "query Q($id: ID!) { node(id: $id) { ... on LedgerAccount { kind name } } }"
    assert (await served.ask(question, credential=boss, id=revenue)).data == {"node": {"kind": "REVENUE", "name": "Revenue"}}
    assert (await served.ask(question, credential=mine.session, id=revenue)).data == {"node": None}


async def test_workspaces_are_found_with_their_money(served: Served) -> None:
    """By a part of the name or of a member's address, or by the customer at Stripe; money is shown, people are not."""
    boss, mine = await served.operator(), await served.owner(name=f"Ada {uuid7().hex}")
    await served.credit(mine, 1_234_567)
    customer = f"cus_{uuid7().hex}"
    await database.fetch("INSERT INTO stripe_object (id, kind, workspace_id, subject_id) VALUES ($1, 'customer', $2, $2)", customer, mine.workspace.id)
    whole = {
        "id": ids.encode("Workspace", mine.workspace.id),
        "name": mine.workspace.name,
        "credits": {"balance": {"microUsd": 1_234_567}},
        "billing": {"tier": None},
        "members": None,
    }
    for search in (mine.workspace.name[4:30].upper(), mine.email, customer):
        found = (await served.ask(WORKSPACES, credential=boss, search=search)).data["operator"]["workspaces"]
        assert found == {"totalCount": 1, "pageInfo": {"hasNextPage": False, "endCursor": found["pageInfo"]["endCursor"]}, "nodes": [whole]}
    for search in (f"{customer[:-1]}%", "_" * 40, uuid7().hex):
        assert (await served.ask(WORKSPACES, credential=boss, search=search)).data["operator"]["workspaces"]["nodes"] == []
    first = (await served.ask(WORKSPACES, credential=boss, first=1)).data["operator"]["workspaces"]
    second = (await served.ask(WORKSPACES, credential=boss, first=1, after=first["pageInfo"]["endCursor"])).data["operator"]["workspaces"]
    assert first["pageInfo"]["hasNextPage"]
    assert first["nodes"][0]["id"] != second["nodes"][0]["id"]


async def test_the_operator_s_page_is_answered(served: Served) -> None:
    """Console_Operator: workspaces with money, failed jobs, what all of them cost, and how wide usage may be asked."""
    told = await run(served, "Console_Operator", await served.operator())
    assert told["service"]["version"] == "1.2.3"
    widest = {"AUTO": 400, "MINUTE": 0, "HOUR": 31, "DAY": 400, "WEEK": 400, "MONTH": 400}  # minutes reach six hours, which is no whole day
    assert told["service"]["usageLimits"] == [{"granularity": granularity, "widestDays": days} for granularity, days in widest.items()]
    assert set(told["operator"]) == {"workspaces", "failedJobs", "usage"}
    assert set(told["operator"]["usage"]["totals"]) == {"cost", "upstreamCost"}


async def test_a_job_that_was_given_up_is_told_and_queued_again(served: Served) -> None:
    """Its failure and tries are told; jobRetry queues it with all its tries before it, once, and says so in the audit log of its workspace."""
    boss, mine = await served.operator(), await served.owner()
    job_id = str(await give_up(mine.workspace.id, finished_at=datetime.now(UTC) + timedelta(seconds=30)))
    listed = (await served.ask(FAILED, credential=boss)).data["operator"]["failedJobs"]
    (told,) = [job for job in listed if job["jobId"] == job_id]
    assert (told["function"], told["tries"], told["status"]) == ("tests.nothing", 20, "FAILED")
    assert told["failure"] == {"code": "given_up", "message": "the mail server said no", "retryable": True}
    answered = (await served.ask(RETRY, credential=boss, id=job_id)).data["jobRetry"]
    assert answered == {"job": {"function": "tests.nothing", "jobId": job_id, "status": "QUEUED", "tries": 0, "failure": None}, "userErrors": []}
    again = (await served.ask(RETRY, credential=boss, id=job_id)).data["jobRetry"]
    assert (again["job"], [(error["code"], error["path"]) for error in again["userErrors"]]) == (None, [("INVALID_STATE", ["input", "jobId"])])
    assert job_id not in [job["jobId"] for job in (await served.ask(FAILED, credential=boss)).data["operator"]["failedJobs"]]
    events = "{ auditEvents(filter: { actions: [\"job.retry\"] }) { nodes { actor { kind name } changes } } }"
    (event,) = (await served.ask(events, credential=mine.session)).data["auditEvents"]["nodes"]
    assert event == {
        "actor": {"kind": "OPERATOR", "name": "Otto Operator"},
        "changes": {"jobId": [None, job_id], "function": [None, "tests.nothing"], "status": ["failed", "queued"]},
    }


async def test_a_job_that_nobody_knows_is_refused(served: Served) -> None:
    """Operator_JobRetry names a job `j`: it does not exist, nor does any other id; a customer may not even ask."""
    boss, mine = await served.operator(), await served.owner()
    assert [error["code"] for error in (await run(served, "Operator_JobRetry", boss))["jobRetry"]["userErrors"]] == ["NOT_FOUND"]
    unknown = (await served.ask(RETRY, credential=boss, id=str(uuid7()))).data["jobRetry"]
    assert [error["code"] for error in unknown["userErrors"]] == ["NOT_FOUND"]
    assert (await answer(served, "Operator_JobRetry", mine.session)).codes == ["FORBIDDEN"]
    assert (await answer(served, "Operator_Books", mine.session)).codes == ["FORBIDDEN"]
    for first in (0, 101):
        refused: Any = await served.ask(FAILED, credential=boss, first=first)
        assert refused.codes == ["BAD_USER_INPUT"]
