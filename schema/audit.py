"""The audit log."""

import datetime
from typing import Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.audit import AuditEventView
from domain.audit import AuditFilter as Narrowing
from domain.pages import PageOf
from models.enums import Scope
from resolvers import audit as resolvers
from resolvers import usage, workspaces
from schema import ids, pages
from schema.access import requires
from schema.callers import Actor
from schema.context import Info
from schema.directives import PAGED, Cost
from schema.errors import unacceptable
from schema.fields import resolved
from schema.inputs import given
from schema.nodes import Node
from schema.ranges import UsageRange
from schema.scalars import JSON, SafeInt
from schema.workspaces import Workspace


@strawberry.type(description="One change, by whom, to what.")
class AuditEvent(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    action: str = field(description="What was done, for example `apiKey.rotate`.")
    actor: Actor = field(description="Who did it.")
    changes: JSON = field(description="The fields changed, each with its old and new value. Secrets are left out.")
    reason: str | None = field(description="The reason given.")
    request_id: str | None = field(description="The `X-Request-Id` of the request; null for a job.")
    address: str | None = field(description="The caller's address; null for a job.")
    created_at: datetime.datetime = field(description="When.")
    place: strawberry.Private[UUID | None]
    changed: strawberry.Private[tuple[str, str] | None]

    @resolved("The workspace; null for a change to the service itself.")
    async def workspace(self, info: Info) -> Workspace | None:
        """Load it."""
        return Workspace.of(await workspaces.of_event(info.context, self.place)) if self.place else None

    @resolved("What was changed; null when it is gone or has no identity.")
    async def subject(self, info: Info) -> Node | None:
        """Load it, for whoever may see it."""
        from schema.refetch import refetch

        return await refetch(info.context, ids.encode(*self.changed)) if self.changed else None

    @classmethod
    def of(cls, event: AuditEventView) -> Self:
        """The event as GraphQL shows it."""
        return cls(
            id=ids.encode("AuditEvent", event.id),
            action=event.action,
            actor=Actor.of(event.actor),
            changes=JSON(event.changes),
            reason=event.reason,
            request_id=event.request_id,
            address=event.address,
            created_at=event.created_at,
            place=event.workspace_id,
            changed=event.subject,
        )


@strawberry.type(description="An audit event and its place.")
class AuditEventEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: AuditEvent = field(description="The audit event.")


@strawberry.type(description="A page of audit events.")
class AuditEventConnection:
    """A page of audit events."""

    page: strawberry.Private[PageOf[AuditEventView]]
    filter_: strawberry.Private[Narrowing]
    everywhere: strawberry.Private[bool]

    @resolved("The page.")
    def edges(self) -> list[AuditEventEdge]:
        """Show the page."""
        return [AuditEventEdge(cursor=pages.cursor("AuditEvent", event.id), node=AuditEvent.of(event)) for event in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[AuditEvent]:
        """Show the page."""
        return [AuditEvent.of(event) for event in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("AuditEvent", self.page, [event.id for event in self.page.items])

    @resolved("How many there are in all; counted only when selected.", directives=[Cost(weight="5")])
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context, self.filter_, everywhere=self.everywhere))


@strawberry.input(description="Narrows the audit log.")
class AuditEventFilter:
    """As the contract has it."""

    actions: list[str] | None = field(description="Actions by name or by noun, for example `apiKey.rotate` or `apiKey`.", default=UNSET)
    subject_id: strawberry.ID | None = field(description="The global ID of what was changed.", default=UNSET)
    actor_id: strawberry.ID | None = field(description="The global ID of the person or key that did it.", default=UNSET)
    range: UsageRange | None = field(description="The window.", default=UNSET)

    async def wanted(self, info: Info) -> Narrowing:
        """The filter as the domain takes it; days are those of UTC. Raises BAD_USER_INPUT for what is no global ID."""
        subject_id, actor_id = given(self.subject_id), given(self.actor_id)
        subject = None if subject_id is None else ids.decode(subject_id)
        actor = None if actor_id is None else ids.uuid_of("User", actor_id) or ids.uuid_of("ApiKey", actor_id)
        for name, named, found in (("subjectId", subject_id, subject), ("actorId", actor_id, actor)):
            if named is not None and found is None:
                raise unacceptable(f"`{name}` names nothing of that kind.")
        over = await usage.window(info.context, self.range.wanted(), "UTC") if self.range else None
        return Narrowing(
            actions=tuple(self.actions) if isinstance(self.actions, list) else None,
            subject=subject,
            actor=actor,
            start=over.start if over else None,
            end=over.end if over else None,
        )


Filter = Annotated[AuditEventFilter | None, strawberry.argument(description="Only the events that match.")]


async def events(
    info: Info, first: int | None, after: str | None, last: int | None, before: str | None, filter: AuditEventFilter | None, *, everywhere: bool
) -> AuditEventConnection:
    """A page of changes: the workspace's, or everybody's for an operator."""
    wanted = await filter.wanted(info) if filter else Narrowing()
    page = await resolvers.page(info.context, pages.page_of("AuditEvent", first, after, last, before), wanted, everywhere=everywhere)
    return AuditEventConnection(page=page, filter_=wanted, everywhere=everywhere)


@strawberry.type
class AuditQueries:
    """Reads of the audit log."""

    @resolved(
        "Every change made in the workspace, newest first. Requires scope `AUDIT_READ`.", extensions=requires(Scope.AUDIT_READ), directives=[PAGED]
    )
    async def audit_events(
        self,
        info: Info,
        first: pages.First = UNSET,
        after: pages.After = UNSET,
        last: pages.Last = UNSET,
        before: pages.Before = UNSET,
        filter: Filter = UNSET,
    ) -> AuditEventConnection | None:
        """Read a page of them."""
        return await events(info, first, after, last, before, filter, everywhere=False)
