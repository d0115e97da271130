"""Bounds: the most that a workspace, a member or a key may spend or call in a window. Admission enforces them; this sets and shows them."""

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from domain import audit, periods
from domain.access.callers import Caller
from domain.errors import InvalidInput, NotFound, OutOfRange
from domain.money import catalogue
from domain.money.amounts import LARGEST_MICROUSD
from models import database
from models.enums import LimitPer, Measure, Scope, SubjectKind
from models.ids import uuid7

MOST_BOUNDS = 20
COUNTS = (Measure.CALLS, Measure.TOKENS, Measure.CONCURRENT)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BoundInput:
    """A bound to set: microdollars for money, a count otherwise."""

    measure: Measure
    window: str
    most: int
    per: LimitPer = LimitPer.TOGETHER
    model: str | None = None


@dataclass(frozen=True, slots=True)
class BoundView:
    """A bound and where its current window stands; the numbers are None for a bound on each end user or address."""

    measure: Measure
    window: str
    most: int
    per: LimitPer
    model: str | None
    spent: int | None
    held: int | None
    started_at: datetime | None
    ends_at: datetime | None


def check(bounds: Sequence[BoundInput], *, path: str) -> None:
    """Raise InvalidInput or OutOfRange, naming the entry, for a bound that cannot be kept."""
    if len(bounds) > MOST_BOUNDS:
        raise OutOfRange(f"At most {MOST_BOUNDS} at once.", minimum=0, maximum=MOST_BOUNDS, too_large=True, path=(path,))
    seen = set()
    for index, bound in enumerate(bounds):
        here = (path, str(index))
        periods.check_window(bound.window, path=(*here, "window"))
        if (bound.window == "concurrent") != (bound.measure is Measure.CONCURRENT):
            raise InvalidInput("Only calls can be bounded at any one time.", path=(*here, "window"))
        if not 0 <= bound.most <= LARGEST_MICROUSD:
            raise OutOfRange(
                "A bound is 0 or more.", minimum=0, maximum=LARGEST_MICROUSD, too_large=bound.most > 0, path=(*here, "limit")
            )
        if bound.model is not None and not 1 <= len(bound.model) <= 200:
            raise InvalidInput("A model's name has 1 to 200 characters.", path=(*here, "model"))
        identity = (bound.measure, bound.window, bound.per, bound.model)
        if identity in seen:
            raise InvalidInput("The same window is bounded twice.", path=(*here, "window"))
        seen.add(identity)


async def replace(
    workspace_id: UUID, subject_kind: SubjectKind, subject_id: UUID, measures: Sequence[Measure], bounds: Sequence[BoundInput], *, at: datetime
) -> None:
    """Make `bounds` the subject's only ones of these measures; one that stays keeps what its window has spent.

    Call it in a transaction. It takes the workspace's money lock, so that no admission sees half of the change.
    """
    await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
    rows = await database.fetch(
        """
        SELECT id, measure, "window", per, model FROM bound
         WHERE workspace_id = $1 AND subject_kind = $2 AND subject_id = $3 AND measure = ANY ($4) AND removed_at IS NULL
        """,
        workspace_id,
        subject_kind.value,
        subject_id,
        [measure.value for measure in measures],
    )
    old = {(row["measure"], row["window"], row["per"], row["model"]): row["id"] for row in rows}
    for position, bound in enumerate(bounds):
        same = old.pop((bound.measure.value, bound.window, bound.per.value, bound.model), None)
        if same is not None:
            await database.fetch(
                "UPDATE bound SET most = $3, position = $4 WHERE workspace_id = $1 AND id = $2", workspace_id, same, bound.most, position
            )
        else:
            await database.fetch(
                """
                INSERT INTO bound (workspace_id, id, subject_kind, subject_id, measure, "window", most, per, model, position, created_at)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                """,
                workspace_id,
                uuid7(),
                subject_kind.value,
                subject_id,
                bound.measure.value,
                bound.window,
                bound.most,
                bound.per.value,
                bound.model,
                position,
                at,
            )
    if old:
        await database.fetch(
            "UPDATE bound SET removed_at = $3 WHERE workspace_id = $1 AND id = ANY ($2)", workspace_id, list(old.values()), at
        )


async def of_subjects(workspace_id: UUID, subject_ids: Sequence[UUID]) -> dict[UUID, list[BoundView]]:
    """Return the bounds in force of each subject, in the order given; a window that is over counts as empty."""
    rows = await database.fetch(
        """
        SELECT b.subject_id, b.measure, b."window", b.most, b.per, b.model, w.spent, w.held, w.started_at, w.ends_at,
               coalesce(w.ends_at <= clock_timestamp(), false) AS over
          FROM bound b LEFT JOIN bound_window w ON w.workspace_id = b.workspace_id AND w.bound_id = b.id AND w.scope = '' AND b.per = 'together'
         WHERE b.workspace_id = $1 AND b.subject_id = ANY ($2) AND b.removed_at IS NULL
         ORDER BY b.subject_id, b.position, b.id
        """,
        workspace_id,
        list(subject_ids),
    )
    found: dict[UUID, list[BoundView]] = defaultdict(list)
    for row in rows:
        together = row["per"] == LimitPer.TOGETHER
        current = together and not row["over"]
        found[row["subject_id"]].append(
            BoundView(
                measure=Measure(row["measure"]),
                window=row["window"],
                most=row["most"],
                per=LimitPer(row["per"]),
                model=row["model"],
                spent=((row["spent"] or 0) if current else 0) if together else None,
                held=(row["held"] or 0) if together else None,
                started_at=row["started_at"] if current else None,
                ends_at=row["ends_at"] if current else None,
            )
        )
    return found


async def set_bounds(
    caller: Caller,
    subject_kind: SubjectKind,
    subject_id: UUID,
    budgets: tuple[BoundInput, ...] | None,
    limits: tuple[BoundInput, ...] | None,
    *,
    offered: Collection[str] = (),
) -> None:
    """Make these the subject's only budgets and limits, each list for itself; None leaves it. Call it in a transaction.

    Models go by their own names or aliases; `offered` are names that calls may give besides. Raises NotFound for one that there is not,
    InvalidInput and OutOfRange for a bound that cannot be kept.
    """
    for name, measures, bounds in (("budgets", (Measure.MONEY,), budgets), ("limits", COUNTS, limits)):
        if bounds is not None:
            check(bounds, path=name)
            known = await catalogue.own_names({bound.model for bound in bounds if bound.model is not None}) | {each: each for each in offered}
            for place, bound in enumerate(bounds):
                if bound.model is not None and bound.model not in known:
                    raise NotFound("model", path=(name, str(place), "model"))
            own = [bound if bound.model is None else dataclasses.replace(bound, model=known[bound.model]) for bound in bounds]
            await replace(caller.workspace(), subject_kind, subject_id, measures, own, at=caller.at)


_SUBJECTS = {
    SubjectKind.WORKSPACE: "SELECT EXISTS (SELECT FROM workspace WHERE id = $1 AND id = $2)",
    SubjectKind.MEMBER: "SELECT EXISTS (SELECT FROM member WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL)",
    SubjectKind.KEY: "SELECT EXISTS (SELECT FROM api_key WHERE workspace_id = $1 AND id = $2)",
    SubjectKind.APP: "SELECT EXISTS (SELECT FROM app WHERE workspace_id = $1 AND id = $2 AND deleted_at IS NULL)",
    SubjectKind.END_USER: "SELECT EXISTS (SELECT FROM end_user WHERE workspace_id = $1 AND id = $2)",
}


SUBJECT_TYPES = {SubjectKind.MEMBER: "Member", SubjectKind.KEY: "ApiKey", SubjectKind.APP: "App", SubjectKind.END_USER: "EndUser"}
"""How the audit log names what has bounds."""


async def told(workspace_id: UUID, subject_id: UUID) -> list[dict[str, object]]:
    """Return a subject's bounds as the audit log tells them."""
    bounds = (await of_subjects(workspace_id, [subject_id])).get(subject_id, [])
    return [{"measure": each.measure.value, "window": each.window, "limit": each.most, "per": each.per.value, "model": each.model} for each in bounds]


async def reset(caller: Caller, subject_kind: SubjectKind, subject_id: UUID, reason: str) -> None:
    """Begin every budget and limit window of a subject afresh; every process's next admission sees it. What calls under way hold stays held.

    Raises NotFound for a subject that is not the workspace's, InvalidInput for a reason that is none.
    """
    workspace_id = caller.require(Scope.MEMBERS_WRITE)
    if not 1 <= len(reason.strip()) <= 500 or "\x00" in reason:
        raise InvalidInput("A reason has 1 to 500 characters.", path=("reason",))
    exists = _SUBJECTS.get(subject_kind)
    if exists is None or not await database.fetch_value(exists, workspace_id, subject_id):
        raise NotFound(subject_kind.value.replace("_", " "), path=("subjectId",))
    async with database.transaction():
        await database.fetch("SELECT FROM account WHERE workspace_id = $1 AND kind = 'cash' FOR NO KEY UPDATE", workspace_id)
        await database.fetch(
            """
            UPDATE bound_window w SET spent = 0, started_at = NULL, ends_at = NULL FROM bound b
             WHERE b.workspace_id = $1 AND b.subject_kind = $2 AND b.subject_id = $3 AND b.removed_at IS NULL
               AND w.workspace_id = b.workspace_id AND w.bound_id = b.id
            """,
            workspace_id,
            subject_kind.value,
            subject_id,
        )
        subject = (SUBJECT_TYPES.get(subject_kind, "Workspace"), subject_id)
        await audit.note(caller.actor, "limits.reset", subject, None, workspace_id=workspace_id, at=caller.at, reason=reason.strip())
