"""People, as their issuers name them."""

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.errors import InvalidInput, NotFound, Taken
from models import database
from models.ids import uuid7


@dataclass(frozen=True, slots=True)
class UserView:
    """A person."""

    id: UUID
    email: str | None
    name: str | None
    operator: bool

    @property
    def display_name(self) -> str:
        """A name to show: the name, else the address, else the start of the id."""
        return self.name or self.email or f"user {str(self.id)[:8]}"


_COLUMNS = "id, email, name, operator"
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")


def check_email(email: str) -> str:
    """Return an address; raises InvalidInput when it is none, by the rule of HTML's e-mail field."""
    if len(email) > 320 or not _EMAIL.fullmatch(email):
        raise InvalidInput("This is no e-mail address.", path=("email",))
    return email


async def signed_in(issuer: str, subject: str, email: str | None, name: str | None, *, at: datetime) -> UserView:
    """Return the person with an issuer's subject, made on the first log-in; name and verified address follow the issuer's claims."""
    email = email.lower() if email else None
    row = await database.fetch_row(f"SELECT {_COLUMNS} FROM users WHERE issuer = $1 AND subject = $2", issuer, subject)
    if row is None or (email and row["email"] != email) or (name and row["name"] != name):
        row = await database.fetch_row(
            f"""
            INSERT INTO users (id, issuer, subject, email, name, operator, created_at) VALUES ($1, $2, $3, $4, $5, false, $6)
                ON CONFLICT (issuer, subject) DO UPDATE SET email = coalesce(excluded.email, users.email), name = coalesce(excluded.name, users.name)
            RETURNING {_COLUMNS}
            """,
            uuid7(),
            issuer,
            subject,
            email,
            name[:200] if name else None,
            at,
        )
    assert row is not None
    return UserView(**row)


async def create(issuer: str, email: str, name: str | None, *, operator: bool, at: datetime) -> UserView:
    """Make a person of the local issuer, known by address; raises Taken when there is one, and InvalidInput for what is no address."""
    check_email(email)
    row = await database.fetch_row(
        f"""
        INSERT INTO users (id, issuer, subject, email, name, operator, created_at) VALUES ($1, $2, $3, $3, $4, $5, $6)
            ON CONFLICT (issuer, subject) DO NOTHING RETURNING {_COLUMNS}
        """,
        uuid7(),
        issuer,
        email.lower(),
        name,
        operator,
        at,
    )
    if row is None:
        raise Taken(f"There is a person {email.lower()} already.", path=("email",))
    return UserView(**row)


async def placeholder(email: str, *, at: datetime) -> UserView:
    """Return somebody who is only an address so far: whom an invitation names."""
    row = await database.fetch_row(
        f"INSERT INTO users (id, email, operator, created_at) VALUES ($1, $2, false, $3) RETURNING {_COLUMNS}", uuid7(), email.lower(), at
    )
    assert row is not None
    return UserView(**row)


async def by_email(issuer: str, email: str) -> UserView:
    """Return the person of an issuer whose subject or address this is; raises NotFound."""
    row = await database.fetch_row(
        f"SELECT {_COLUMNS} FROM users WHERE issuer = $1 AND (subject = $2 OR email = $2) ORDER BY id LIMIT 1", issuer, email.lower()
    )
    if row is None:
        raise NotFound("person", path=("email",))
    return UserView(**row)


async def find_many(ids: list[UUID]) -> dict[UUID, UserView]:
    """Return the people with these ids, by id."""
    return {row["id"]: UserView(**row) for row in await database.fetch(f"SELECT {_COLUMNS} FROM users WHERE id = ANY ($1)", ids)}


async def make_operator(user_id: UUID) -> None:
    """Let a person run the installation."""
    await database.fetch("UPDATE users SET operator = true WHERE id = $1", user_id)
