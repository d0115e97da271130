"""The mutations of a workspace's settings and bounds; `schema/mutation.py` is made of them."""

from typing import Annotated

import strawberry
from strawberry import field

from domain.access.workspaces import WorkspaceChanges
from domain.errors import NotFound
from models.enums import Scope, SubjectKind
from resolvers import workspaces
from schema import ids
from schema.apps_roots import guarded
from schema.context import Info
from schema.fields import resolved
from schema.limits import BudgetInput, Limited, LimitInput, bounds, limit_bounds
from schema.refetch import refetch
from schema.scalars import TimeZone
from schema.user_errors import UserError
from schema.workspaces import Workspace

SUBJECTS = {
    "Workspace": SubjectKind.WORKSPACE,
    "Member": SubjectKind.MEMBER,
    "ApiKey": SubjectKind.KEY,
    "App": SubjectKind.APP,
    "EndUser": SubjectKind.END_USER,
}


@strawberry.input(description="Input of workspaceUpdate. An absent field stays as it is.")
class WorkspaceUpdateInput:
    """As the contract has it."""

    name: str | None = field(description="The display name.", default=strawberry.UNSET)
    default_timezone: TimeZone | None = field(
        description="The zone of its calendar windows, used too when a caller names none in the console.", default=strawberry.UNSET
    )
    retention_days: int | None = field(
        description="Days for which single calls are kept; null means as long as the service does.", default=strawberry.UNSET
    )
    stopped: bool | None = field(description="The emergency stop: true refuses every call at once.", default=strawberry.UNSET)
    budgets: list[BudgetInput] | None = field(description="What it may spend; replaces the old list.", default=strawberry.UNSET)
    limits: list[LimitInput] | None = field(description="How much it may call; replaces the old list.", default=strawberry.UNSET)

    def changes(self) -> WorkspaceChanges:
        """What to change: null clears the days and the lists, and leaves what cannot be cleared."""
        return WorkspaceChanges(
            name=self.name if isinstance(self.name, str) else None,
            default_timezone=self.default_timezone if isinstance(self.default_timezone, str) else None,
            retention_days=None if self.retention_days is strawberry.UNSET else 0 if self.retention_days is None else self.retention_days or -1,
            stopped=self.stopped if isinstance(self.stopped, bool) else None,
            budgets=None if self.budgets is strawberry.UNSET else bounds(self.budgets or ()),
            limits=None if self.limits is strawberry.UNSET else limit_bounds(self.limits or ()),
        )


@strawberry.type(description="Result of workspaceUpdate.")
class WorkspaceUpdatePayload:
    """As the contract has it."""

    workspace: Workspace | None = field(description="The workspace.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of limitsReset.")
class LimitsResetInput:
    """As the contract has it."""

    subject_id: strawberry.ID = field(description="The workspace, member, key, app or end user.")
    reason: str = field(description="Why.")


@strawberry.type(description="Result of limitsReset.")
class LimitsResetPayload:
    """As the contract has it."""

    subject: Limited | None = field(description="The thing, with fresh windows.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.type
class LimitMutations:
    """Writes of a workspace's settings and bounds."""

    @resolved(
        "Change the workspace's settings. Requires scope `MEMBERS_WRITE`.",
        extensions=guarded(WorkspaceUpdatePayload, Scope.MEMBERS_WRITE),
    )
    async def workspace_update(
        self, info: Info, input: Annotated[WorkspaceUpdateInput, strawberry.argument(description="What to change.")]
    ) -> WorkspaceUpdatePayload | None:
        """Change it."""
        return WorkspaceUpdatePayload(workspace=Workspace.of(await workspaces.update(info.context, input.changes())))

    @resolved(
        (
            "Begin every budget and limit window of a workspace, member, key, app or end user afresh; the next call sees it. "
            "Requires scope `MEMBERS_WRITE`."
        ),
        extensions=guarded(LimitsResetPayload, Scope.MEMBERS_WRITE),
    )
    async def limits_reset(
        self, info: Info, input: Annotated[LimitsResetInput, strawberry.argument(description="Whose.")]
    ) -> LimitsResetPayload | None:
        """Begin them afresh."""
        kind, _ = ids.decode(input.subject_id) or ("", "")
        subject_id = ids.uuid_of(kind, input.subject_id)
        if kind not in SUBJECTS or subject_id is None:
            raise NotFound("thing that has bounds", path=("subjectId",))
        await workspaces.reset_limits(info.context, SUBJECTS[kind], subject_id, input.reason)
        found = await refetch(info.context, input.subject_id)
        return LimitsResetPayload(subject=found if isinstance(found, Limited) else None)
