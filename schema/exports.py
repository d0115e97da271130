"""Files made in the background. None is yet: the type is here for what refetches it as a Job."""

import datetime

import strawberry
from strawberry import field

from models import enums
from schema.callers import Actor
from schema.enums import ExportColumns, ExportDataset, ExportFormat
from schema.nodes import Failure, Job, Node
from schema.scalars import URL, SafeInt


@strawberry.type(description="A file made from a report or a list, in the background.")
class Export(Node, Job):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    dataset: ExportDataset = field(description="What is in it.")
    format: ExportFormat = field(description="Its format.")
    columns: ExportColumns = field(description="Its columns.")
    rows: SafeInt = field(description="Rows written so far.")
    bytes: SafeInt = field(description="Its size in bytes so far.")
    url: URL | None = field(description="Where to download it, whole or in ranges; null until it has succeeded and after `expiresAt`.")
    expires_at: datetime.datetime | None = field(description="When the file is deleted.")
    created_by: Actor = field(description="Who asked for it.")
    status: enums.JobStatus = field(description="Where the work stands.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
