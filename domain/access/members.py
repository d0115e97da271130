"""People in a workspace: invited, joined, given a role, taken out."""

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from domain import audit, duties
from domain.access import limits, users
from domain.access.callers import Caller
from domain.access.limits import BoundInput
from domain.errors import Forbidden, InvalidState, NotFound, QuotaReached, WiderThanCaller
from domain.money import subscriptions
from domain.pages import Page, PageOf, cut, oldest_first
from models import database
from models.enums import Resource, Role, Scope, SubjectKind
from models.ids import uuid7

INVITATION_DAYS = 7
INVITATION_MAIL = "invitation_mail"


@dataclass(frozen=True, slots=True)
class MemberView:
    """A person's place in a workspace, or an open invitation to it (`joined_at` is None)."""

    id: UUID
    workspace_id: UUID
    user_id: UUID
    role: Role
    invited_by: UUID | None
    invitation_expires_at: datetime | None
    joined_at: datetime | None


_COLUMNS = "m.id, m.workspace_id, m.user_id, m.role, m.invited_by, CASE WHEN m.joined_at IS NULL THEN m.invitation_expires_at END AS invitation_expires_at, m.joined_at"
_PRESENT = "m.removed_at IS NULL AND (m.joined_at IS NOT NULL OR m.invitation_expires_at > clock_timestamp())"


def _view(row: asyncpg.Record) -> MemberView:
    return MemberView(**{**row, "role": Role(row["role"])})


async def page(caller: Caller, page: Page) -> PageOf[MemberView]:
    """Return a page of the members, open invitations included, oldest first."""
    workspace_id = caller.require(Scope.MEMBERS_READ)
    keyset = oldest_first(page, column="m.id", offset=1)
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM member m WHERE m.workspace_id = $1 AND {_PRESENT} {keyset.where} {keyset.order}", workspace_id, *keyset.arguments
    )
    return cut([_view(row) for row in rows], page)


async def count(caller: Caller) -> int:
    """Return how many members and open invitations there are."""
    return int(
        await database.fetch_value(f"SELECT count(*) FROM member m WHERE m.workspace_id = $1 AND {_PRESENT}", caller.require(Scope.MEMBERS_READ))
    )


async def find(caller: Caller, member_id: UUID) -> MemberView:
    """Return one member of the workspace; raises NotFound for another's too."""
    found = await find_many(caller, [member_id])
    if member_id not in found:
        raise NotFound("member", path=("id",))
    return found[member_id]


async def find_many(caller: Caller, ids: Sequence[UUID]) -> dict[UUID, MemberView]:
    """Return those of the workspace's members that have these ids, by id."""
    workspace_id = caller.require(Scope.MEMBERS_READ)
    rows = await database.fetch(f"SELECT {_COLUMNS} FROM member m WHERE m.workspace_id = $1 AND m.id = ANY ($2) AND {_PRESENT}", workspace_id, list(ids))
    return {row["id"]: _view(row) for row in rows}


async def invite(caller: Caller, email: str, role: Role) -> MemberView:
    """Invite an address; doing it again sends the invitation anew, with this role and another week.

    A mail with the link is owed in the same transaction. Raises InvalidInput for a malformed address, InvalidState for a member,
    WiderThanCaller when somebody other than an owner invites an owner, or changes such an invitation, and QuotaReached when a plan has no
    room for one more: an invitation takes a place for as long as it can be accepted.
    """
    workspace_id = caller.require(Scope.MEMBERS_WRITE)
    users.check_email(email)
    _refuse_owner(caller, role, path="role")
    async with database.transaction():
        await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        open_ = await database.fetch_row(
            """
            SELECT m.id, m.role, m.joined_at, m.invitation_expires_at > clock_timestamp() AS takes_a_place
              FROM member m JOIN users u ON u.id = m.user_id WHERE m.workspace_id = $1 AND u.email = $2 AND m.removed_at IS NULL
            """,
            workspace_id,
            email.lower(),
        )
        if open_ and open_["joined_at"]:
            raise InvalidState("This person is a member already.", state="joined", path=("email",))
        expires_at = caller.at + timedelta(days=INVITATION_DAYS)
        if not open_ or not open_["takes_a_place"]:
            await _make_room(workspace_id, at=caller.at)
        if open_:
            _refuse_owner(caller, Role(open_["role"]), path="email")
            member_id: UUID = open_["id"]
            await database.fetch(
                "UPDATE member SET role = $3, invited_by = $4, invited_at = $5, invitation_expires_at = $6 WHERE workspace_id = $1 AND id = $2",
                workspace_id,
                member_id,
                role.value,
                caller.user_id,
                caller.at,
                expires_at,
            )
        else:
            member_id = uuid7()
            person = await users.placeholder(email, at=caller.at)
            await database.fetch(
                """
                INSERT INTO member (workspace_id, id, user_id, role, invited_by, invited_at, invitation_expires_at, created_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $6)
                """,
                workspace_id,
                member_id,
                person.id,
                role.value,
                caller.user_id,
                caller.at,
                expires_at,
            )
        await duties.owe(INVITATION_MAIL, {"member_id": str(member_id)}, workspace_id=workspace_id, at=caller.at)
        told = {"email": (None, email.lower()), "role": (open_["role"] if open_ else None, role.value)}
        await audit.note(caller.actor, "member.invite", ("Member", member_id), told, workspace_id=workspace_id, at=caller.at)
    return await find(_reader(caller), member_id)


def invitation_token(secret: str, member_id: UUID, invited_at: datetime) -> str:
    """Return the token of an invitation: made again from the row whenever its mail is sent, and never stored."""
    message = f"invitation:{member_id}:{int(invited_at.timestamp() * 1_000_000)}"
    return f"{member_id.hex}{hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()}"


async def accept(caller: Caller, token: str, secret: str) -> MemberView:
    """Make the signed-in person the member that an invitation names.

    Taking it twice is no error. Raises Forbidden for a key, NotFound for a token that is unknown, over, withdrawn or replaced,
    InvalidState for somebody who is a member already, and QuotaReached when the plan has become too small.
    """
    person = caller.person()
    try:
        member_id = UUID(token[:32])
    except ValueError:
        raise NotFound("invitation", path=("token",)) from None
    async with database.transaction():
        workspace_id = await database.fetch_value("SELECT m.workspace_id FROM member m WHERE m.id = $1", member_id)
        await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        row = await database.fetch_row(
            "SELECT m.*, m.invitation_expires_at <= clock_timestamp() AS over FROM member m WHERE m.id = $1 AND m.removed_at IS NULL FOR NO KEY UPDATE", member_id
        )
        if row is None or row["invited_at"] is None or not hmac.compare_digest(token, invitation_token(secret, member_id, row["invited_at"])):
            raise NotFound("invitation", path=("token",))
        if row["joined_at"] and row["user_id"] == person:
            return _as_joined(row)
        if row["joined_at"] or row["over"]:
            raise NotFound("invitation", path=("token",))
        already = await database.fetch_row(
            f"SELECT {_COLUMNS} FROM member m WHERE m.workspace_id = $1 AND m.user_id = $2 AND m.removed_at IS NULL", row["workspace_id"], person
        )
        if already:
            raise InvalidState("You are a member of this workspace already.", state="joined", path=("token",))
        await _make_room(row["workspace_id"], at=caller.at, but=member_id)
        await database.fetch(
            "UPDATE member SET user_id = $3, joined_at = $4 WHERE workspace_id = $1 AND id = $2", row["workspace_id"], member_id, person, caller.at
        )
        told = {"joinedAt": (None, caller.at)}
        await audit.note(caller.actor, "invitation.accept", ("Member", member_id), told, workspace_id=row["workspace_id"], at=caller.at)
        joined = await database.fetch_row("SELECT m.* FROM member m WHERE m.workspace_id = $1 AND m.id = $2", row["workspace_id"], member_id)
    assert joined is not None
    return _as_joined(joined)


async def _make_room(workspace_id: UUID, *, at: datetime, but: UUID | None = None) -> None:
    """Let the open transaction, which has the workspace's lock, add a member, or take in `but`, whose invitation has its place; or raise QuotaReached."""
    most = await subscriptions.allowance(workspace_id, Resource.MEMBERS, at=at)
    if most is None:
        return
    taken = "joined_at IS NOT NULL OR ($2::uuid IS NULL AND invitation_expires_at > clock_timestamp())"
    used = await database.fetch_value(f"SELECT count(*) FROM member WHERE workspace_id = $1 AND removed_at IS NULL AND ({taken})", workspace_id, but)
    if used >= most:
        told = f"The plan allows {most} members, invitations among them, and there are {used}: take one out, or choose a larger plan."
        raise QuotaReached(told, resource=Resource.MEMBERS, limit=most, used=used)


def _as_joined(row: asyncpg.Record) -> MemberView:
    return MemberView(row["id"], row["workspace_id"], row["user_id"], Role(row["role"]), row["invited_by"], None, row["joined_at"])


async def update(
    caller: Caller,
    member_id: UUID,
    role: Role | None,
    budgets: tuple[BoundInput, ...] | None,
    bounds: tuple[BoundInput, ...] | None,
    *,
    offered: Collection[str] = (),
) -> MemberView:
    """Change a member's role as `change_role` does, and make these the only budgets and limits of the person's calls here; None leaves each.

    All of it or nothing. Nobody but an owner changes an owner. Raises NotFound for a model of a bound, InvalidInput, OutOfRange besides.
    """
    caller.require(Scope.MEMBERS_WRITE)
    async with database.transaction():
        if role is not None:
            await change_role(caller, member_id, role)
        member = await _locked(caller, member_id)
        if budgets is not None or bounds is not None:
            _refuse_owner(caller, member.role, path="id")
            await limits.set_bounds(caller, SubjectKind.MEMBER, member_id, budgets, bounds, offered=offered)
    return await find(_reader(caller), member_id)


async def change_role(caller: Caller, member_id: UUID, role: Role) -> MemberView:
    """Give a member another role.

    Raises NotFound, Forbidden for one's own role, WiderThanCaller when an owner is made or unmade by anybody else, and InvalidState for the
    last owner.
    """
    workspace_id = caller.require(Scope.MEMBERS_WRITE)
    async with database.transaction():
        member = await _locked(caller, member_id)
        if member.user_id == caller.user_id:
            raise Forbidden("Nobody changes their own role.", path=("role",))
        _refuse_owner(caller, role, path="role")
        _refuse_owner(caller, member.role, path="id")
        if member.role is Role.OWNER and role is not Role.OWNER:
            await _refuse_last_owner(workspace_id, member_id)
        await database.fetch("UPDATE member SET role = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, member_id, role.value)
        told = {"role": (member.role.value, role.value)}
        await audit.note(caller.actor, "member.update", ("Member", member_id), told, workspace_id=workspace_id, at=caller.at)
    return await find(_reader(caller), member_id)


async def remove(caller: Caller, member_id: UUID) -> UUID:
    """Take a person out, or withdraw an invitation; the row stays as history. Raises as `change_role` does; leaving oneself is allowed."""
    workspace_id = caller.require(Scope.MEMBERS_WRITE)
    async with database.transaction():
        member = await _locked(caller, member_id)
        if member.user_id != caller.user_id:
            _refuse_owner(caller, member.role, path="id")
        if member.role is Role.OWNER and member.joined_at is not None:
            await _refuse_last_owner(workspace_id, member_id)
        await database.fetch("UPDATE member SET removed_at = $3 WHERE workspace_id = $1 AND id = $2", workspace_id, member_id, caller.at)
        told = {"role": (member.role.value, None)}
        await audit.note(caller.actor, "member.remove", ("Member", member_id), told, workspace_id=workspace_id, at=caller.at)
    return member_id


async def _locked(caller: Caller, member_id: UUID) -> MemberView:
    workspace_id = caller.workspace()
    await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM member m WHERE m.workspace_id = $1 AND m.id = $2 AND {_PRESENT}", workspace_id, member_id)
    if row is None:
        raise NotFound("member", path=("id",))
    return _view(row)


def _refuse_owner(caller: Caller, role: Role, *, path: str) -> None:
    if role is Role.OWNER and caller.role is not Role.OWNER and not caller.operator:
        raise WiderThanCaller("Only an owner can make or change an owner.", path=(path,))


async def _refuse_last_owner(workspace_id: UUID, member_id: UUID) -> None:
    others = await database.fetch_value(
        "SELECT EXISTS (SELECT FROM member WHERE workspace_id = $1 AND id <> $2 AND role = 'owner' AND joined_at IS NOT NULL AND removed_at IS NULL)",
        workspace_id,
        member_id,
    )
    if not others:
        raise InvalidState("A workspace keeps at least one owner.", state="last owner", path=("id",))


def _reader(caller: Caller) -> Caller:
    """Whoever may write members may see the one just written."""
    return Caller(at=caller.at, workspace_id=caller.workspace_id, name=caller.name, scopes=caller.scopes | {Scope.MEMBERS_READ})


@dataclass(frozen=True, slots=True)
class InvitationMail:
    """What the mail of an open invitation needs."""

    to: str
    workspace_name: str
    inviter_name: str | None
    role: Role
    token: str
    expires_at: datetime


async def invitation_mail(workspace_id: UUID, member_id: UUID, secret: str) -> InvitationMail | None:
    """Return the mail of an invitation that is still open; None when it was taken, withdrawn or is over."""
    row = await database.fetch_row(
        f"""
        SELECT u.email, w.name AS workspace, i.name AS inviter, i.email AS inviter_email, m.role, m.invited_at, m.invitation_expires_at
          FROM member m JOIN workspace w ON w.id = m.workspace_id JOIN users u ON u.id = m.user_id LEFT JOIN users i ON i.id = m.invited_by
         WHERE m.workspace_id = $1 AND m.id = $2 AND m.joined_at IS NULL AND {_PRESENT}
        """,
        workspace_id,
        member_id,
    )
    if row is None:
        return None
    return InvitationMail(
        to=row["email"],
        workspace_name=row["workspace"],
        inviter_name=row["inviter"] or row["inviter_email"],
        role=Role(row["role"]),
        token=invitation_token(secret, member_id, row["invited_at"]),
        expires_at=row["invitation_expires_at"],
    )
