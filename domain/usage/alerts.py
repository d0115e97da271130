"""Alerts: thresholds on spend, balance, tokens, errors and budgets, each told once in its window.

A calendar window (`day`, `week`, `month`) is the workspace's own; a rolling one (`5h`, `24h`, `7d`) ends now, and after it has fired it is
quiet for its own length. BALANCE fires again after the balance was above the threshold; BUDGET_PERCENT once in each window of each budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from domain import audit, duties, periods, webhooks
from domain.access import keys, limits, users
from domain.access.callers import Caller
from domain.apps import registry
from domain.errors import InvalidInput, NotFound, OutOfRange
from domain.money import ledger
from domain.money.amounts import LARGEST_MICROUSD, usd
from domain.usage import measure
from domain.usage.metrics import UsageFilter
from domain.usage.windows import Between, resolve
from models import database
from models.enums import AlertMetric, Measure, Scope, SubjectKind
from models.ids import uuid7

MAIL: Final = "alert_mail"
MOST_RULES = 50
MOST_EMAILS = 20
LONGEST_NAME = 200
LOOK_SECONDS = 5
"""How often a rule is looked at while its workspace's money moves."""
IDLE_SECONDS = 60
"""How often it is looked at otherwise."""
LOOKS_AT_ONCE = 100
METERED = (AlertMetric.SPEND, AlertMetric.TOKENS, AlertMetric.ERRORS)
IN_MONEY = (AlertMetric.SPEND, AlertMetric.BALANCE)
CALENDAR = ("day", "week", "month", "billing_period")
FOREVER = timedelta(days=400)
"""The longest window that usage is measured over."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """When an alert fires: microdollars for SPEND and BALANCE, a count for TOKENS and ERRORS, percent for BUDGET_PERCENT."""

    metric: AlertMetric
    value: int


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule to make; `subject` None is the whole workspace, `window` None a day where the metric has one."""

    name: str
    threshold: Threshold
    subject: tuple[SubjectKind, UUID] | None = None
    window: str | None = None
    endpoint_id: UUID | None = None
    emails: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """What to change of a rule; None leaves a field, except that `clear_endpoint` takes the endpoint away."""

    name: str | None = None
    threshold: Threshold | None = None
    window: str | None = None
    endpoint_id: UUID | None = None
    clear_endpoint: bool = False
    emails: Sequence[str] | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule as it is."""

    id: UUID
    workspace_id: UUID
    name: str
    subject_kind: SubjectKind
    subject_id: UUID
    metric: AlertMetric
    threshold: int
    window: str | None
    endpoint_id: UUID | None
    emails: tuple[str, ...]
    enabled: bool
    last_fired_at: datetime | None
    created_at: datetime


_COLUMNS = 'id, workspace_id, name, subject_kind, subject_id, metric, threshold, "window", endpoint_id, emails, enabled, last_fired_at, created_at'
_FIELDS = tuple(RuleView.__dataclass_fields__)


_KEPT = "r.removed_at IS NULL AND NOT EXISTS (SELECT FROM app p WHERE p.workspace_id = r.workspace_id AND p.id = r.subject_id AND p.deleted_at IS NOT NULL)"
"""A rule goes with the app that it watches."""


def _view(row: asyncpg.Record) -> RuleView:
    plain = {name: row[name] for name in _FIELDS}
    return RuleView(**plain | {"subject_kind": SubjectKind(row["subject_kind"]), "metric": AlertMetric(row["metric"]), "emails": tuple(row["emails"])})


def _check_name(name: str) -> str:
    if not 1 <= len(name.strip()) <= LONGEST_NAME or "\x00" in name:
        raise InvalidInput(f"A name has 1 to {LONGEST_NAME} characters.", path=("name",))
    return name


def _check_threshold(threshold: Threshold) -> None:
    most = 1000 if threshold.metric is AlertMetric.BUDGET_PERCENT else LARGEST_MICROUSD
    least = 0 if threshold.metric is AlertMetric.BALANCE else 1
    if not least <= threshold.value <= most:
        raise OutOfRange(
            f"This threshold is {least} to {most}.", minimum=least, maximum=most, too_large=threshold.value > most, path=("threshold",)
        )


def _check_window(metric: AlertMetric, window: str | None) -> str | None:
    if metric not in METERED:
        if window is not None:
            raise InvalidInput("Only spend, tokens and errors are counted in a window.", path=("window",))
        return None
    if window is None:
        return "day"
    periods.check_window(window, path=("window",))
    if window == "concurrent":
        raise InvalidInput("Usage is not counted at one time, but over a window.", path=("window",))
    return window


def _check_emails(emails: Sequence[str]) -> list[str]:
    if len(emails) > MOST_EMAILS:
        raise OutOfRange(f"At most {MOST_EMAILS} addresses.", minimum=0, maximum=MOST_EMAILS, too_large=True, path=("emails",))
    for index, email in enumerate(emails):
        try:
            users.check_email(email)
        except InvalidInput as error:
            raise InvalidInput(error.message, path=("emails", str(index))) from None
    return list(dict.fromkeys(emails))


def _check_subject(metric: AlertMetric, kind: SubjectKind) -> None:
    if metric is AlertMetric.BALANCE and kind is not SubjectKind.WORKSPACE:
        raise InvalidInput("Only a workspace has a balance.", path=("threshold", "balance"))


async def _check_endpoint(workspace_id: UUID, endpoint_id: UUID) -> None:
    found = await database.fetch_row(
        "SELECT FROM webhook_endpoint WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL FOR KEY SHARE", workspace_id, endpoint_id
    )
    if found is None:
        raise NotFound("webhook endpoint", path=("webhookEndpointId",))


async def create(caller: Caller, new: NewRule) -> RuleView:
    """Make a rule; raises InvalidInput, OutOfRange or NotFound, naming the field."""
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    kind, subject_id = new.subject or (SubjectKind.WORKSPACE, workspace_id)
    _check_name(new.name)
    _check_threshold(new.threshold)
    _check_subject(new.threshold.metric, kind)
    window = _check_window(new.threshold.metric, new.window)
    emails = _check_emails(new.emails)
    try:
        if kind is SubjectKind.WORKSPACE and subject_id != workspace_id:
            raise NotFound("workspace")
        if kind is SubjectKind.KEY:
            await keys.find(replace(caller, scopes=caller.scopes | {Scope.KEYS_READ}), subject_id)
        if kind is SubjectKind.APP:
            await registry.find(replace(caller, scopes=caller.scopes | {Scope.APPS_READ}), subject_id)
    except NotFound as unknown:
        raise NotFound(unknown.what, path=("subjectId",)) from None
    async with database.transaction():
        await database.fetch("SELECT FROM workspace WHERE id = $1 FOR NO KEY UPDATE", workspace_id)
        if await database.fetch_value("SELECT count(*) FROM alert_rule WHERE workspace_id = $1 AND removed_at IS NULL", workspace_id) >= MOST_RULES:
            raise OutOfRange(f"A workspace has at most {MOST_RULES} rules.", minimum=0, maximum=MOST_RULES, too_large=True)
        if new.endpoint_id is not None:
            await _check_endpoint(workspace_id, new.endpoint_id)
        row = await database.fetch_row(
            f"""
            INSERT INTO alert_rule (workspace_id, id, name, subject_kind, subject_id, metric, threshold, "window", endpoint_id, emails, enabled, fired_for, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, true, '{{}}', $11) RETURNING {_COLUMNS}
            """,
            workspace_id,
            uuid7(),
            new.name,
            kind.value,
            subject_id,
            new.threshold.metric.value,
            new.threshold.value,
            window,
            new.endpoint_id,
            emails,
            caller.at,
        )
        assert row is not None
        rule = _view(row)
        await audit.note(caller.actor, "alertRule.create", ("AlertRule", rule.id), audit.difference(None, _changed(rule)), workspace_id=workspace_id, at=caller.at)
    return rule


def _changed(rule: RuleView) -> dict[str, object]:
    return {
        "name": rule.name,
        "metric": rule.metric.value,
        "threshold": rule.threshold,
        "window": rule.window,
        "webhookEndpointId": rule.endpoint_id,
        "emails": rule.emails,
        "enabled": rule.enabled,
    }


async def every(caller: Caller) -> list[RuleView]:
    """Return the workspace's rules, oldest first."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM alert_rule r WHERE workspace_id = $1 AND {_KEPT} ORDER BY id", caller.require(Scope.ALERTS_READ)
    )
    return [_view(row) for row in rows]


async def find(caller: Caller, rule_id: UUID) -> RuleView:
    """Return one rule; raises NotFound for another workspace's too."""
    row = await database.fetch_row(
        f"SELECT {_COLUMNS} FROM alert_rule r WHERE workspace_id = $1 AND id = $2 AND {_KEPT}", caller.require(Scope.ALERTS_READ), rule_id
    )
    if row is None:
        raise NotFound("alert rule", path=("id",))
    return _view(row)


async def update(caller: Caller, rule_id: UUID, changes: RuleChanges) -> RuleView:
    """Change a rule; one whose threshold or window changed may fire again at once. Raises as `create` does."""
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    async with database.transaction():
        row = await database.fetch_row(
            f"SELECT {_COLUMNS} FROM alert_rule WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL FOR NO KEY UPDATE", workspace_id, rule_id
        )
        if row is None:
            raise NotFound("alert rule", path=("id",))
        old = _view(row)
        threshold = changes.threshold or Threshold(old.metric, old.threshold)
        _check_threshold(threshold)
        _check_subject(threshold.metric, old.subject_kind)
        window = _check_window(threshold.metric, changes.window if changes.window is not None or threshold.metric not in METERED else old.window)
        if changes.endpoint_id is not None:
            await _check_endpoint(workspace_id, changes.endpoint_id)
        anew = (threshold.metric, threshold.value, window) != (old.metric, old.threshold, old.window)
        row = await database.fetch_row(
            f"""
            UPDATE alert_rule SET name = $3, metric = $4, threshold = $5, "window" = $6, endpoint_id = $7, emails = $8, enabled = $9,
                   checked_at = NULL, quiet_until = CASE WHEN $10 THEN NULL ELSE quiet_until END, fired_for = CASE WHEN $10 THEN '{{}}' ELSE fired_for END
             WHERE workspace_id = $1 AND id = $2 RETURNING {_COLUMNS}
            """,
            workspace_id,
            rule_id,
            old.name if changes.name is None else _check_name(changes.name),
            threshold.metric.value,
            threshold.value,
            window,
            None if changes.clear_endpoint else changes.endpoint_id or old.endpoint_id,
            list(old.emails) if changes.emails is None else _check_emails(changes.emails),
            old.enabled if changes.enabled is None else changes.enabled,
            anew,
        )
        assert row is not None
        rule = _view(row)
        told = audit.difference(_changed(old), _changed(rule))
        await audit.note(caller.actor, "alertRule.update", ("AlertRule", rule_id), told, workspace_id=workspace_id, at=caller.at)
    return rule


async def remove(caller: Caller, rule_id: UUID) -> UUID:
    """Delete a rule; raises NotFound for another workspace's too."""
    workspace_id = caller.require(Scope.ALERTS_WRITE)
    async with database.transaction():
        row = await database.fetch_row(
            "UPDATE alert_rule SET removed_at = $3 WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL RETURNING id", workspace_id, rule_id, caller.at
        )
        if row is None:
            raise NotFound("alert rule", path=("id",))
        await audit.note(caller.actor, "alertRule.delete", ("AlertRule", rule_id), None, workspace_id=workspace_id, at=caller.at)
    return rule_id


# Looking.


@dataclass(frozen=True, slots=True)
class _Due:
    """A rule to look at, and what it remembers."""

    rule: RuleView
    zone: str
    fired_for: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Reached:
    """A threshold that is reached: the value, since when it counts, until when the rule is quiet, and what it remembers from here."""

    value: int
    started_at: datetime | None
    quiet_until: datetime | None
    fired_for: dict[str, str]


async def look() -> int:
    """Look at the rules whose turn it is and fire those that are reached; return how many fired.

    Any process may do so at any time: a rule is taken by one of them, and fires in one transaction with what it owes.
    """
    rows = await database.fetch(
        f"""
        WITH due AS (
          SELECT r.workspace_id, r.id FROM alert_rule r
            LEFT JOIN account a ON a.workspace_id = r.workspace_id AND a.kind = 'cash'
           WHERE {_KEPT} AND r.enabled AND (r.quiet_until IS NULL OR r.quiet_until <= clock_timestamp())
             AND (r.checked_at IS NULL OR r.checked_at < clock_timestamp() - make_interval(secs => $1)
               OR (a.updated_at > r.checked_at - interval '1 second' AND r.checked_at < clock_timestamp() - make_interval(secs => $2)))
           ORDER BY r.checked_at NULLS FIRST LIMIT $3 FOR NO KEY UPDATE OF r SKIP LOCKED)
        UPDATE alert_rule r SET checked_at = clock_timestamp() FROM due
         WHERE r.workspace_id = due.workspace_id AND r.id = due.id
        RETURNING {", ".join(f'r."{name}"' for name in _FIELDS)}, r.fired_for, r.checked_at AS now,
                  (SELECT w.default_timezone FROM workspace w WHERE w.id = r.workspace_id) AS zone
        """,
        IDLE_SECONDS,
        LOOK_SECONDS,
        LOOKS_AT_ONCE,
    )
    fired = 0
    for row in rows:
        due = _Due(_view(row), row["zone"], msgspec.json.decode(row["fired_for"]))
        fired += await _fire(due, await _reached(due, row["now"]), at=row["now"])
    return fired


def _system(rule: RuleView, at: datetime) -> Caller:
    return Caller(at=at, workspace_id=rule.workspace_id, name="alerts", scopes=frozenset({Scope.USAGE_READ, Scope.USAGE_READ_ALL}))


async def _reached(due: _Due, now: datetime) -> _Reached | None:
    """Return what a rule has reached, or None; for what has no window, with nothing to tell when only its memory changes."""
    rule = due.rule
    if rule.metric is AlertMetric.BALANCE:
        available = (await ledger.balance(rule.workspace_id)).available
        below = available < rule.threshold
        if below == bool(due.fired_for):
            return None
        return _Reached(available, None, None, {"balance": "below"} if below else {})
    if rule.metric is AlertMetric.BUDGET_PERCENT:
        return await _budget(due)
    assert rule.window is not None
    start, quiet_until = await _window(rule.window, due.zone, now)
    used = await measure.totals(_system(rule, now), resolve(Between(start, now + timedelta(seconds=1)), due.zone, now), _narrowed(rule))
    value = {AlertMetric.SPEND: used.charge_microusd, AlertMetric.TOKENS: used.tokens, AlertMetric.ERRORS: used.errors}[rule.metric]
    return _Reached(value, start, quiet_until, {}) if value >= rule.threshold else None


async def _window(window: str, zone: str, now: datetime) -> tuple[datetime, datetime]:
    row = await database.fetch_row("SELECT begins, ends FROM window_1($1, $2, $3)", window, zone, now)
    assert row is not None
    if window in CALENDAR:
        return row["begins"], row["ends"]
    length = FOREVER if row["ends"] is None else row["ends"] - row["begins"]
    return now - min(length, FOREVER - timedelta(seconds=2)), now + length


def _narrowed(rule: RuleView) -> UsageFilter:
    match rule.subject_kind:
        case SubjectKind.KEY:
            return UsageFilter(api_keys=(rule.subject_id,))
        case SubjectKind.APP:
            return UsageFilter(apps=(rule.subject_id,))
    return UsageFilter()


async def _budget(due: _Due) -> _Reached | None:
    bounds = (await limits.of_subjects(due.rule.workspace_id, [due.rule.subject_id])).get(due.rule.subject_id, [])
    remembered, highest, started = {}, -1, None
    for bound in bounds:
        if bound.measure is not Measure.MONEY or bound.spent is None:
            continue
        percent = bound.spent * 100 // bound.most if bound.most else 100
        name = f"{bound.window}:{bound.model or ''}"
        window = "" if bound.started_at is None else bound.started_at.isoformat()
        if percent < due.rule.threshold:
            continue
        remembered[name] = window
        if due.fired_for.get(name) != window and percent > highest:
            highest, started = percent, bound.started_at
    if highest < 0 and remembered == due.fired_for:
        return None
    return _Reached(highest, started, None, remembered)


async def _fire(due: _Due, reached: _Reached | None, *, at: datetime) -> bool:
    rule = due.rule
    if reached is None:
        return False
    told = reached.value >= rule.threshold if rule.metric is not AlertMetric.BALANCE else bool(reached.fired_for)
    async with database.transaction():
        row = await database.fetch_row(
            """
            UPDATE alert_rule SET fired_for = $3, quiet_until = $4, last_fired_at = CASE WHEN $5 THEN $6 ELSE last_fired_at END
             WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL AND enabled AND fired_for = $7::jsonb
               AND (quiet_until IS NULL OR quiet_until <= $6) AND (metric, threshold) = ($8, $9) AND "window" IS NOT DISTINCT FROM $10
            RETURNING endpoint_id, emails
            """,
            rule.workspace_id,
            rule.id,
            msgspec.json.encode(reached.fired_for).decode(),
            reached.quiet_until,
            told,
            at,
            msgspec.json.encode(due.fired_for).decode(),
            rule.metric.value,
            rule.threshold,
            rule.window,
        )
        if row is None or not told:
            return False
        data = _told(rule, reached)
        if row["endpoint_id"] is not None:
            await webhooks.tell(rule.workspace_id, webhooks.ALERT_FIRED, data, at=at, endpoint_id=row["endpoint_id"])
        for email in row["emails"]:
            await duties.owe(MAIL, {"to": email, "name": rule.name, "text": _text(rule, reached)}, workspace_id=rule.workspace_id, at=at)
    return True


def _told(rule: RuleView, reached: _Reached) -> dict[str, Any]:
    return {
        "rule": {"id": str(rule.id), "name": rule.name},
        "workspace_id": str(rule.workspace_id),
        "subject": {"kind": rule.subject_kind.value, "id": str(rule.subject_id)},
        "metric": rule.metric.value,
        "threshold": rule.threshold,
        "value": reached.value,
        "window": rule.window,
        "window_started_at": None if reached.started_at is None else reached.started_at.isoformat().replace("+00:00", "Z"),
    }


def _text(rule: RuleView, reached: _Reached) -> str:
    def shown(value: int) -> str:
        return f"${usd(value)}" if rule.metric in IN_MONEY else f"{value} %" if rule.metric is AlertMetric.BUDGET_PERCENT else str(value)

    what = {
        AlertMetric.SPEND: "The charge has reached",
        AlertMetric.BALANCE: "What can be spent has fallen below",
        AlertMetric.TOKENS: "The tokens have reached",
        AlertMetric.ERRORS: "The failed calls have reached",
        AlertMetric.BUDGET_PERCENT: "A budget is used to",
    }[rule.metric]
    window = "" if rule.window is None else f" in the window `{rule.window}`"
    of = "the workspace" if rule.subject_kind is SubjectKind.WORKSPACE else f"the {rule.subject_kind.value} {rule.subject_id}"
    return f"{what} {shown(rule.threshold)}{window}, for {of}: it is {shown(reached.value)} now.\n\nThe alert rule is called {rule.name!r}.\n"
