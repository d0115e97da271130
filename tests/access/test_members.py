"""People in a workspace: invited by mail, joined once, and never more than an owner allows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email import policy
from email.parser import BytesParser
from pathlib import Path
from uuid import UUID

import pytest

from clients.bills import Bills
from clients.compressor import Compressor
from clients.exports import Files
from clients.issuers import LOCAL_ISSUER
from clients.mail import Mail
from clients.prompts import Prompts
from clients.queue import ArqQueue
from clients.rates import Rates
from clients.storage import Storage
from clients.unpacker import Unpacker
from clients.upstream import Upstreams
from clients.webhooks import Webhooks
from domain import duties, errors
from domain.access import callers, members, users, workspaces
from domain.access.callers import ROLE_SCOPES, Caller
from domain.access.members import MemberView
from domain.apps.addresses import Addresses
from domain.money.catalogue import Book
from domain.pages import Page
from domain.serving.calls import Calls
from domain.serving.routing import Routes
from domain.serving.smoothing import Smoother
from domain.usage.cache_doctor import Doctor
from jobs import worker
from models import database
from models.enums import Role, Scope
from models.ids import uuid7
from runtime import Runtime
from tests.access.sessions import NOBODY
from tests.conftest import SECRET, Suite
from tests.support.world import Tenant, subscribed, tenant

pytestmark = pytest.mark.anyio


async def person(email: str | None = None) -> Caller:
    """Make somebody who has signed in and is a member of nothing."""
    made = await users.create(LOCAL_ISSUER, email or f"{uuid7().hex}@example.com", "Nina New", operator=False, at=datetime.now(UTC))
    return Caller(at=datetime.now(UTC), workspace_id=None, name=made.display_name, scopes=frozenset(), user_id=made.id)


async def token_of(workspace_id: UUID, member: MemberView) -> str:
    """Return the token that the mail of an invitation carries."""
    mail = await members.invitation_mail(workspace_id, member.id, SECRET)
    assert mail is not None
    return mail.token


@dataclass(frozen=True, slots=True)
class Joined:
    """Somebody who has joined, as a caller and as a member."""

    caller: Caller
    member: MemberView


async def join(mine: Tenant, role: Role) -> Joined:
    """Invite somebody and let them accept."""
    who = await person()
    invited = await members.invite(mine.caller(), f"{uuid7().hex}@example.com", role)
    member = await members.accept(who, await token_of(mine.workspace_id, invited), SECRET)
    return Joined(replace(who, workspace_id=mine.workspace_id, role=role, scopes=ROLE_SCOPES[role]), member)


async def own_place(mine: Tenant) -> MemberView:
    """Return the owner's own membership."""
    return next(member for member in (await members.page(mine.caller(), Page())).items if member.user_id == mine.owner.user_id)


async def test_an_invitation_is_accepted_by_whoever_has_its_token(books: Suite) -> None:
    """The person who accepts becomes the member, with the role that the invitation names; taking it twice is no error and changes nothing."""
    mine, nina = await tenant(), await person()
    invited = await members.invite(mine.caller(), "Nina.New@Example.com", Role.DEVELOPER)
    assert (invited.joined_at, invited.role, invited.invited_by) == (None, Role.DEVELOPER, mine.owner.user_id)
    token = await token_of(mine.workspace_id, invited)
    joined = await members.accept(nina, token, SECRET)
    again = await members.accept(nina, token, SECRET)
    assert (joined.id, joined.user_id, joined.role) == (invited.id, nina.user_id, Role.DEVELOPER)
    assert again == joined
    assert nina.user_id is not None
    assert [(place.workspace.id, place.role) for place in await workspaces.of_user(nina.user_id)] == [(mine.workspace_id, Role.DEVELOPER)]
    with pytest.raises(errors.NotFound):
        await members.accept(await person(), token, SECRET)


async def test_inviting_again_replaces_the_invitation(books: Suite) -> None:
    """The second invitation of an address is the same row with the new role and another token; the first token is over."""
    mine, nina = await tenant(), await person()
    first = await members.invite(mine.caller(), "nina@example.com", Role.VIEWER)
    old = await token_of(mine.workspace_id, first)
    second = await members.invite(mine.caller(), "NINA@example.com", Role.DEVELOPER)
    new = await token_of(mine.workspace_id, second)
    assert (second.id, second.role) == (first.id, Role.DEVELOPER)
    assert old != new
    assert await members.count(mine.caller()) == 2
    with pytest.raises(errors.NotFound):
        await members.accept(nina, old, SECRET)
    assert (await members.accept(nina, new, SECRET)).role is Role.DEVELOPER


async def test_a_token_is_believed_whole_or_not_at_all(books: Suite) -> None:
    """A token of another secret, another row, a changed one, a malformed one, an expired one and a withdrawn one are all unknown."""
    mine, nina = await tenant(), await person()
    invited = await members.invite(mine.caller(), "nina@example.com", Role.VIEWER)
    token = await token_of(mine.workspace_id, invited)
    other = await members.invite(mine.caller(), "otto@example.com", Role.VIEWER)
    for wrong in (token[:-1], token + "0", token[:-1] + ("0" if token[-1] != "0" else "1"), other.id.hex + token[32:], "", "no token", token.upper()):
        with pytest.raises(errors.NotFound):
            await members.accept(nina, wrong, SECRET)
    with pytest.raises(errors.NotFound):
        await members.accept(nina, token, SECRET + "another")
    await database.fetch("UPDATE member SET invitation_expires_at = clock_timestamp() WHERE id = $1", invited.id)
    with pytest.raises(errors.NotFound):
        await members.accept(nina, token, SECRET)
    assert await members.invitation_mail(mine.workspace_id, invited.id, SECRET) is None
    withdrawn = await token_of(mine.workspace_id, other)
    await members.remove(mine.caller(), other.id)
    with pytest.raises(errors.NotFound):
        await members.accept(nina, withdrawn, SECRET)
    assert await members.count(mine.caller()) == 1


async def test_a_key_accepts_no_invitation(books: Suite) -> None:
    """Only a signed-in person can join."""
    mine = await tenant()
    invited = await members.invite(mine.caller(), "nina@example.com", Role.VIEWER)
    caller = await callers.identify(mine.secret, None, sessions=NOBODY, open_signup=False, at=datetime.now(UTC))
    assert caller is not None
    with pytest.raises(errors.Forbidden):
        await members.accept(caller, await token_of(mine.workspace_id, invited), SECRET)


async def test_two_invitations_make_one_member(books: Suite) -> None:
    """A person who holds several invitations and takes all at once joins once; the others are refused as already joined."""
    mine, nina = await tenant(), await person()
    tokens = [await token_of(mine.workspace_id, await members.invite(mine.caller(), f"nina{n}@example.com", Role.VIEWER)) for n in range(8)]
    heard = await asyncio.gather(*(members.accept(nina, token, SECRET) for token in tokens), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in heard) == ["InvalidState"] * 7 + ["MemberView"]
    left = next(token for token, answer in zip(tokens, heard, strict=True) if isinstance(answer, errors.InvalidState))
    with pytest.raises(errors.InvalidState):
        await members.accept(mine.caller(), left, SECRET)


async def test_a_member_is_not_invited_again(books: Suite) -> None:
    """An address of somebody who is a member already is refused."""
    mine = await tenant()
    with pytest.raises(errors.InvalidState) as refusal:
        await members.invite(mine.caller(), mine.owner_email.upper(), Role.ADMIN)
    assert refusal.value.state == "joined"


NO_ADDRESSES = ["", "nina", "nina@", "@example.com", "nina@exa mple.com", "nina@example.com\nBcc: all@example.com", "x" * 65 + "@example.com", "n@" + "a" * 330]


@pytest.mark.parametrize("email", NO_ADDRESSES)
async def test_a_malformed_address_is_refused(books: Suite, email: str) -> None:
    """No mail goes to what is no address, and none with another header in it."""
    mine = await tenant()
    with pytest.raises(errors.InvalidInput):
        await members.invite(mine.caller(), email, Role.VIEWER)


async def test_only_owners_make_and_unmake_owners(books: Suite) -> None:
    """F30: an admin can neither invite nor make an owner, nor change, re-invite or remove one; an owner can."""
    mine = await tenant()
    admin, viewer = await join(mine, Role.ADMIN), await join(mine, Role.VIEWER)
    boss = await own_place(mine)
    pending = await members.invite(mine.caller(), "future-owner@example.com", Role.OWNER)
    refused: list[Callable[[], Awaitable[object]]] = [
        lambda: members.invite(admin.caller, "new-owner@example.com", Role.OWNER),
        lambda: members.invite(admin.caller, "future-owner@example.com", Role.VIEWER),
        lambda: members.change_role(admin.caller, viewer.member.id, Role.OWNER),
        lambda: members.change_role(admin.caller, boss.id, Role.VIEWER),
        lambda: members.change_role(admin.caller, pending.id, Role.VIEWER),
        lambda: members.remove(admin.caller, boss.id),
        lambda: members.remove(admin.caller, pending.id),
    ]
    for attempt in refused:
        with pytest.raises(errors.WiderThanCaller):
            await attempt()
    assert (await members.change_role(admin.caller, viewer.member.id, Role.BILLING)).role is Role.BILLING
    assert (await members.change_role(mine.caller(), viewer.member.id, Role.OWNER)).role is Role.OWNER
    assert (await members.change_role(mine.caller(), viewer.member.id, Role.VIEWER)).role is Role.VIEWER


async def test_nobody_changes_their_own_role(books: Suite) -> None:
    """F30: neither an admin nor an owner changes their own role."""
    mine = await tenant()
    admin = await join(mine, Role.ADMIN)
    with pytest.raises(errors.Forbidden):
        await members.change_role(admin.caller, admin.member.id, Role.OWNER)
    with pytest.raises(errors.Forbidden):
        await members.change_role(mine.caller(), (await own_place(mine)).id, Role.VIEWER)


async def test_a_workspace_keeps_an_owner(books: Suite) -> None:
    """The last owner can neither leave nor be changed, not even by the operator; of two who remove each other at once, one stays."""
    mine = await tenant()
    boss = await own_place(mine)
    with pytest.raises(errors.InvalidState):
        await members.remove(mine.caller(), boss.id)
    operator = replace(await person(), workspace_id=mine.workspace_id, scopes=frozenset(Scope))
    with pytest.raises(errors.InvalidState):
        await members.change_role(operator, boss.id, Role.VIEWER)
    await members.invite(mine.caller(), "pending@example.com", Role.OWNER)
    with pytest.raises(errors.InvalidState):
        await members.remove(mine.caller(), boss.id)
    second = await join(mine, Role.OWNER)
    heard = await asyncio.gather(members.remove(mine.caller(), second.member.id), members.remove(second.caller, boss.id), return_exceptions=True)
    assert sorted(isinstance(answer, errors.InvalidState) for answer in heard) == [False, True]
    left = mine.caller() if isinstance(heard[1], errors.InvalidState) else second.caller
    assert [member.user_id for member in (await members.page(left, Page())).items if member.role is Role.OWNER and member.joined_at] == [left.user_id]


async def test_whoever_was_removed_is_out(books: Suite) -> None:
    """A removed member is no member on the next request, can be invited again, and then has a new row."""
    mine = await tenant()
    dev = await join(mine, Role.DEVELOPER)
    await members.remove(mine.caller(), dev.member.id)
    assert dev.caller.user_id is not None
    assert await workspaces.of_user(dev.caller.user_id) == []
    with pytest.raises(errors.NotFound):
        await members.find(mine.caller(), dev.member.id)
    again = await members.invite(mine.caller(), f"{uuid7().hex}@example.com", Role.VIEWER)
    joined = await members.accept(replace(dev.caller, workspace_id=None), await token_of(mine.workspace_id, again), SECRET)
    assert joined.id != dev.member.id


async def test_scopes_and_workspaces_are_asked_for(books: Suite) -> None:
    """F30: roles without MEMBERS_WRITE change nothing, and members of other workspaces do not exist."""
    mine, theirs = await tenant(), await tenant()
    other = await own_place(theirs)
    for role in (Role.DEVELOPER, Role.BILLING, Role.VIEWER):
        caller = (await join(mine, role)).caller
        for attempt in (members.invite(caller, "a@example.com", Role.VIEWER), members.remove(caller, other.id), members.change_role(caller, other.id, Role.VIEWER)):
            with pytest.raises(errors.MissingScope):
                await attempt
    for foreign in (members.find(mine.caller(), other.id), members.remove(mine.caller(), other.id), members.change_role(mine.caller(), other.id, Role.VIEWER)):
        with pytest.raises(errors.NotFound):
            await foreign


async def jobs_of(of: Tenant) -> list[tuple[UUID, str]]:
    """Return the duties of a workspace: id and status, oldest first."""
    return [(row["id"], row["status"]) for row in await database.fetch("SELECT id, status FROM job WHERE workspace_id = $1 ORDER BY id", of.workspace_id)]


async def test_the_duty_to_mail_stands_and_falls_with_the_invitation(books: Suite) -> None:
    """J1, F22: the mail is owed by a row in the invitation's own transaction: when that is rolled back, nothing is owed."""
    mine = await tenant()
    with contextlib.suppress(ZeroDivisionError):
        async with database.transaction():
            await members.invite(mine.caller(), "nina@example.com", Role.VIEWER)
            assert len(await jobs_of(mine)) == 1
            raise ZeroDivisionError
    assert await jobs_of(mine) == []
    assert await members.count(mine.caller()) == 1


@pytest.fixture
async def desk(books: Suite, tmp_path: Path) -> AsyncIterator[Runtime]:
    """What a worker holds, with a folder of its own for mail."""
    book, upstreams, queue = Book(), Upstreams(), ArqQueue(books.environment["REDIS_URL"])
    calls, mail, webhooks = Calls(book, batch=1, hold_seconds=60), Mail(None, "tests@localhost", tmp_path), Webhooks(private_allowed=False)
    rates, prompts = Rates(books.environment["REDIS_URL"]), Prompts(books.environment["REDIS_URL"])
    smoother = Smoother("requests", None, rates)
    yield Runtime(
        *(books.settings, book, calls, Routes(book, []), upstreams, NOBODY, queue, mail, webhooks),
        smoothing=smoother,
        counting=smoother,
        minting=smoother,
        store=Storage.in_folder(tmp_path / "files"),
        bills=Bills({}),
        files=Files(),
        compressor=Compressor(),
        unpacker=Unpacker(),
        addresses=Addresses("http", "localhost", 8000),
        doctor=Doctor(book, prompts, "of no use here"),
    )
    await prompts.close()
    await rates.close()
    await upstreams.close()
    await queue.close()


async def test_the_worker_mails_the_token(desk: Runtime, tmp_path: Path) -> None:
    """The worker writes one mail to the address that was invited, and its token lets that person in; the duty is done and done once."""
    mine = await tenant()
    await members.invite(mine.caller(), "nina@example.com", Role.DEVELOPER)
    [(job_id, _)] = await jobs_of(mine)
    for _ in range(2):
        await worker.run({"runtime": desk}, str(job_id))
    await until_done(mine, job_id)
    files = list(tmp_path.glob("*.eml")) or list((desk.settings.data / "mail").glob(f"{job_id}.eml"))
    assert [path.name for path in files] == [f"{job_id}.eml"]
    mail = BytesParser(policy=policy.default).parsebytes(files[0].read_bytes())
    assert (mail["To"], mail["Message-ID"]) == ("nina@example.com", f"<{job_id}@tallygate>")
    text = mail.get_content()
    assert "Olga Owner invites you" in text
    token = next(line for line in text.splitlines() if len(line) == 96)
    assert token in files[0].read_text().splitlines()  # who opens the file has it in one piece
    assert "`invitationAccept`" in text
    joined = await members.accept(await person(), token, SECRET)
    assert joined.role is Role.DEVELOPER


async def until_done(of: Tenant, job_id: UUID) -> None:
    """Wait for a duty that another worker of this run may have taken first."""
    for _ in range(200):
        if dict(await jobs_of(of))[job_id] == "succeeded":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(await jobs_of(of))


async def test_an_invitation_that_was_withdrawn_is_not_mailed(desk: Runtime, tmp_path: Path) -> None:
    """A duty whose invitation is gone is done without a mail."""
    mine = await tenant()
    async with database.transaction():  # nobody sees the duty before the invitation is gone
        invited = await members.invite(mine.caller(), "nina@example.com", Role.DEVELOPER)
        await members.remove(mine.caller(), invited.id)
    [(job_id, _)] = await jobs_of(mine)
    await worker.run({"runtime": desk}, str(job_id))
    await until_done(mine, job_id)
    assert list(tmp_path.glob("*.eml")) == []
    assert not (desk.settings.data / "mail" / f"{job_id}.eml").exists()


async def test_who_comes_when_the_plan_has_become_too_small_is_no_member(books: Suite) -> None:
    """Two are invited and have a place; then a plan of two members comes: the first joins, the second is refused, and may join when there is room."""
    mine = await tenant()
    ann, ben = [await members.invite(mine.caller(), f"{uuid7().hex}@example.com", Role.VIEWER) for _ in range(2)]
    await subscribed(mine, [{"resource": "tokens", "window": "24h", "limit": 1000}, {"resource": "members", "window": "concurrent", "limit": 2}])
    await members.accept(await person(), await token_of(mine.workspace_id, ann), SECRET)
    late, token = await person(), await token_of(mine.workspace_id, ben)
    with pytest.raises(errors.QuotaReached, match="allows 2 members, invitations among them, and there are 2"):
        await members.accept(late, token, SECRET)
    assert await database.fetch_value("SELECT count(*) FROM member WHERE workspace_id = $1 AND joined_at IS NOT NULL", mine.workspace_id) == 2
    await members.remove(mine.caller(), ann.id)
    assert (await members.accept(late, token, SECRET)).role is Role.VIEWER


async def test_a_duty_that_fails_comes_back(books: Suite, desk: Runtime, tmp_path: Path) -> None:
    """A mail that cannot be written leaves the duty queued, with its reason and a later time; nothing is lost."""
    mine = await tenant()
    blocked = tmp_path / "file"
    blocked.touch()
    async with database.transaction():
        await members.invite(mine.caller(), "nina@example.com", Role.DEVELOPER)
        [(job_id, _)] = await jobs_of(mine)
        await database.fetch("UPDATE job SET next_at = next_at + interval '1 hour' WHERE id = $1", job_id)
    await worker.run({"runtime": replace(desk, mail=Mail(None, "tests@localhost", blocked / "mail"))}, str(job_id))
    row = await database.fetch_row("SELECT status, tries, failure, next_at > clock_timestamp() AS later FROM job WHERE id = $1", job_id)
    assert row is not None
    assert (row["status"], row["tries"], row["later"]) == ("queued", 1, True)
    assert row["failure"].startswith("NotADirectoryError")
    await worker.run({"runtime": desk}, str(job_id))
    await until_done(mine, job_id)


async def test_a_duty_is_claimed_by_one_worker(books: Suite) -> None:
    """J1: of many workers at once one claims a duty; a duty that is taken or done is nobody's."""
    mine = await tenant()
    async with database.transaction():
        job_id = await duties.owe("nothing", {}, workspace_id=mine.workspace_id, at=datetime.now(UTC))
        await database.fetch("UPDATE job SET next_at = next_at + interval '1 hour' WHERE id = $1", job_id)
    claimed = [duty for duty in await asyncio.gather(*(duties.claim(job_id) for _ in range(20))) if duty is not None]
    assert len(claimed) == 1
    assert await duties.done(claimed[0])
    assert not await duties.done(claimed[0])
    assert await duties.claim(job_id) is None


class Twice(Mail):
    """Mail whose sending meets a row that is there already."""

    async def send(self, to: str, subject: str, text: str, *, duty_id: UUID) -> None:
        """Write the same row twice."""
        for _ in range(2):
            await database.fetch("INSERT INTO clock (name, done_at) VALUES ($1, clock_timestamp())", f"canary {duty_id}")


async def test_what_a_job_fails_of_says_nothing_of_its_data(books: Suite, desk: Runtime) -> None:
    """A failure is kept without the values that Postgres tells of: they may be a customer's."""
    mine = await tenant()
    async with database.transaction():
        await members.invite(mine.caller(), "nina@example.com", Role.DEVELOPER)
        [(job_id, _)] = await jobs_of(mine)
        await database.fetch("UPDATE job SET next_at = next_at + interval '1 hour' WHERE id = $1", job_id)
    await worker.run({"runtime": replace(desk, mail=Twice(None, "tests@localhost", Path()))}, str(job_id))
    failure = await database.fetch_value("SELECT failure FROM job WHERE id = $1", job_id)
    assert failure == 'UniqueViolationError: duplicate key value violates unique constraint "clock_pkey"'
    await worker.run({"runtime": desk}, str(job_id))
    await until_done(mine, job_id)
