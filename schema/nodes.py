"""What things have in common: an identity, and work that goes on after the answer."""

import datetime

import strawberry
from strawberry import field

from models import enums
from schema import enums as described  # noqa: F401  # describes the enums of the tables before a type uses one


@strawberry.interface(description="An object with a global identity. Any Node can be refetched with `node(id:)`.")
class Node:
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID. Do not parse it.")


@strawberry.type(description="Why something failed.")
class Failure:
    """As the contract has it."""

    code: str = field(description="A stable, machine-readable reason.")
    message: str = field(description="The reason in English.")
    retryable: bool = field(description="Whether trying again may help.")


@strawberry.interface(description="Work that goes on after the mutation has answered.")
class Job:
    """Work in the background."""

    status: enums.JobStatus = field(description="Where the work stands.")
    created_at: datetime.datetime = field(description="When it was queued.")
    progress: float | None = field(description="How far it is, 0 to 1; null when that cannot be told.")
    finished_at: datetime.datetime | None = field(description="When it reached a final status.")
    failure: Failure | None = field(description="Why it failed; null unless it failed.")
