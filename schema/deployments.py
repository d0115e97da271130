"""Deployments: immutable versions of an app's files."""

import datetime
from typing import TYPE_CHECKING, Annotated, Self
from uuid import UUID

import strawberry
from strawberry import UNSET, field

from domain.apps.deployments import DeploymentView, FileView, Line, NewFile
from domain.pages import PageOf
from models import enums
from resolvers import deployments as resolvers
from resolvers.deployments import Target
from schema import ids, pages
from schema.callers import Actor
from schema.context import Info
from schema.directives import PAGED
from schema.enums import LogLevel
from schema.fields import resolved
from schema.nodes import Failure, Job, Node
from schema.scalars import URL, SafeInt
from schema.user_errors import UserError

if TYPE_CHECKING:
    from schema.apps import App


@strawberry.type(description="A file of a deployment.")
class DeployedFile:
    """As the contract has it."""

    path: str = field(description="The path below the app's root, without a leading slash.")
    content_type: str = field(description="Its media type.")
    bytes: SafeInt = field(description="Its size in bytes.")
    sha256: str = field(description="SHA-256 of its content in hex.")

    @classmethod
    def of(cls, file: FileView) -> Self:
        """The file as GraphQL shows it."""
        return cls(path=file.path, content_type=file.content_type, bytes=SafeInt(file.bytes), sha256=file.sha256)


@strawberry.type(description="A deployed file and its place.")
class DeployedFileEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: DeployedFile = field(description="The file.")


@strawberry.type(description="A page of deployed files.")
class DeployedFileConnection:
    """A page of files."""

    page: strawberry.Private[PageOf[FileView]]

    @resolved("The page.")
    def edges(self) -> list[DeployedFileEdge]:
        """Show the page."""
        return [
            DeployedFileEdge(cursor=pages.cursor("DeployedFile", UUID(int=file.position)), node=DeployedFile.of(file)) for file in self.page.items
        ]

    @resolved("The page without cursors.")
    def nodes(self) -> list[DeployedFile]:
        """Show the page."""
        return [DeployedFile.of(file) for file in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("DeployedFile", self.page, [UUID(int=file.position) for file in self.page.items])


@strawberry.type(description="A line of a deployment's log.")
class DeploymentLogLine:
    """As the contract has it."""

    at: datetime.datetime = field(description="When.")
    level: LogLevel = field(description="How serious.")
    message: str = field(description="What.")

    @classmethod
    def of(cls, line: Line) -> Self:
        """The line as GraphQL shows it."""
        return cls(at=line.at, level=LogLevel[line.level.upper()], message=line.message)


@strawberry.type(description="One immutable version of an app's static files. Going back is making an older deployment live again.")
class Deployment(Node, Job):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    version: int = field(description="1 for the first deployment of the app, then 2, and so on.")
    message: str | None = field(description="What the deployer wrote, for example a commit message.")
    status: enums.JobStatus = field(description="Where the work stands.")
    live: bool = field(description="Whether this deployment is the one served.")
    file_count: int = field(description="How many files it has.")
    total_bytes: SafeInt = field(description="Their size in bytes.")
    log: list[DeploymentLogLine] = field(description="What happened, oldest first.")
    created_by: Actor = field(description="Who deployed it.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
    deployment_id: strawberry.Private[UUID]
    app_id: strawberry.Private[UUID]
    slug: strawberry.Private[str]

    @resolved("The app.")
    async def app(self, info: Info) -> Annotated["App", strawberry.lazy("schema.apps")]:
        """Find it."""
        from schema.apps import App

        return App.of(await resolvers.app_of(info.context, self.app_id))

    @resolved("Its own permanent address; null until it has succeeded.")
    def url(self, info: Info) -> URL | None:
        """Tell it."""
        if self.status is not enums.JobStatus.SUCCEEDED:
            return None
        return URL(info.context.facilities.addresses.url(self.slug, self.version))

    @resolved("Its files, by path.", directives=[PAGED])
    async def files(
        self, info: Info, first: pages.First = UNSET, after: pages.After = UNSET, last: pages.Last = UNSET, before: pages.Before = UNSET
    ) -> DeployedFileConnection:
        """Read a page of them."""
        wanted = pages.page_of("DeployedFile", first, after, last, before)
        return DeployedFileConnection(page=await resolvers.files(info.context, self.deployment_id, wanted))

    @classmethod
    def of(cls, found: DeploymentView) -> Self:
        """The deployment as GraphQL shows it."""
        failure = found.failure
        return cls(
            id=ids.encode("Deployment", found.id),
            version=found.version,
            message=found.message,
            status=found.status,
            live=found.live,
            file_count=found.file_count,
            total_bytes=SafeInt(found.total_bytes),
            log=[DeploymentLogLine.of(line) for line in found.log],
            created_by=Actor.of(found.creator),
            created_at=found.created_at,
            progress=found.progress,
            finished_at=found.finished_at,
            failure=Failure(code=failure.code, message=failure.message, retryable=failure.retryable) if failure else None,
            deployment_id=found.id,
            app_id=found.app_id,
            slug=found.slug,
        )


@strawberry.type(description="A deployment and its place.")
class DeploymentEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Deployment = field(description="The deployment.")


@strawberry.type(description="A page of deployments.")
class DeploymentConnection:
    """A page of deployments."""

    page: strawberry.Private[PageOf[DeploymentView]]
    app_id: strawberry.Private[UUID]

    @resolved("The page.")
    def edges(self) -> list[DeploymentEdge]:
        """Show the page."""
        return [DeploymentEdge(cursor=pages.cursor("Deployment", each.id), node=Deployment.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Deployment]:
        """Show the page."""
        return [Deployment.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Deployment", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count(info.context, self.app_id))


@strawberry.type(description="An HTTP header.")
class HttpHeader:
    """As the contract has it."""

    name: str = field(description="Its name.")
    value: str = field(description="Its value.")


@strawberry.type(description="Where to send one file. Send it with `method` and exactly these headers before `expiresAt`.")
class UploadTarget:
    """As the contract has it."""

    path: str = field(description="The file's path, as given.")
    method: str = field(description="The HTTP method, `PUT`.")
    url: URL = field(description="The signed address.")
    headers: list[HttpHeader] = field(description="Headers to send.")
    expires_at: datetime.datetime = field(description="When the address stops working.")

    @classmethod
    def of(cls, target: Target) -> Self:
        """The target as GraphQL shows it."""
        return cls(path=target.path, method="PUT", url=URL(target.url), headers=[], expires_at=target.expires_at)


@strawberry.input(description="A file to deploy.")
class DeploymentFileInput:
    """As the contract has it."""

    path: str = field(description="The path below the app's root, without a leading slash.")
    bytes: SafeInt = field(description="Its size in bytes.")
    sha256: str = field(description="SHA-256 of its content in hex.")
    content_type: str | None = field(description="Its media type; guessed from the path when absent.", default=UNSET)


@strawberry.input(description="Input of deploymentCreate.")
class DeploymentCreateInput:
    """As the contract has it."""

    app_id: strawberry.ID = field(description="The app.")
    files: list[DeploymentFileInput] = field(description="All files, 5000 at most.")
    message: str | None = field(description="What this deployment is, for example a commit message.", default=UNSET)
    idempotency_key: str | None = field(
        description="Makes a retry return the first deployment instead of another.", default=UNSET
    )

    def given(self) -> list[NewFile]:
        """The files as the domain takes them."""
        return [NewFile(each.path, each.bytes, each.sha256, each.content_type or None) for each in self.files]


@strawberry.type(description="Result of deploymentCreate.")
class DeploymentCreatePayload:
    """As the contract has it."""

    deployment: Deployment | None = field(description="The deployment, in status AWAITING_UPLOAD.", default=None)
    uploads: list[UploadTarget] | None = field(
        description="Where to send the files that the store does not hold yet; empty when it holds all.", default=None
    )
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of deploymentFinalize.")
class DeploymentFinalizeInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The deployment.")


@strawberry.type(description="Result of deploymentFinalize.")
class DeploymentFinalizePayload:
    """As the contract has it."""

    deployment: Deployment | None = field(description="The deployment, now queued.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of deploymentRollback.")
class DeploymentRollbackInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The deployment to make live.")


@strawberry.type(description="Result of deploymentRollback.")
class DeploymentRollbackPayload:
    """As the contract has it."""

    deployment: Deployment | None = field(description="The deployment that is live now.", default=None)
    app: Annotated["App", strawberry.lazy("schema.apps")] | None = field(
        description="The app, with its new live deployment.", default=None
    )
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)


@strawberry.input(description="Input of deploymentCancel.")
class DeploymentCancelInput:
    """As the contract has it."""

    id: strawberry.ID = field(description="The deployment.")


@strawberry.type(description="Result of deploymentCancel.")
class DeploymentCancelPayload:
    """As the contract has it."""

    deployment: Deployment | None = field(description="The deployment.", default=None)
    user_errors: list[UserError] = field(description="What the caller can repair; empty on success.", default_factory=list)
