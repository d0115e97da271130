"""The directives that the contract applies to fields: who may read one, what it costs, how long its list can be."""

import strawberry
from strawberry.schema_directive import Location

from models.enums import Scope


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="requiresScopes",
    description=(
        "The credential must hold every scope listed. Applied directives are invisible to introspection, so each such field also names its\n"
        "scope in its description."
    ),
)
class RequiresScopes:
    """Names the scopes that `schema.access.requires` checks."""

    scopes: list[Scope] = strawberry.field(name="scopes", description="The scopes, all of them needed.")


@strawberry.schema_directive(
    locations=[
        Location.FIELD_DEFINITION,
        Location.OBJECT,
        Location.SCALAR,
        Location.ENUM,
        Location.ARGUMENT_DEFINITION,
        Location.INPUT_FIELD_DEFINITION,
    ],
    name="cost",
    description=("The static price of a field in rate-limit points (GraphQL Cost Directive draft, `weight` as a number in a string)."),
)
class Cost:
    """Read by `schema.admission`; a field without it costs one point when it answers objects, and none otherwise."""

    weight: str = strawberry.field(name="weight", description="Points charged for each evaluation of this field.")


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="listSize",
    description=(
        "Which arguments bound the length of a list, so that its cost can be computed before it runs (GraphQL Cost Directive draft)."
    ),
)
class ListSize:
    """Read by `schema.admission`; a list without it is taken to be `admission.UNSIZED_LIST` long."""

    assumed_size: int | None = strawberry.field(
        name="assumedSize", default=strawberry.UNSET, description="The length to assume when no slicing argument is given."
    )
    slicing_arguments: list[str] | None = strawberry.field(
        name="slicingArguments", default=strawberry.UNSET, description="The arguments that bound the list."
    )
    sized_fields: list[str] | None = strawberry.field(
        name="sizedFields", default=strawberry.UNSET, description="The fields of the connection to which the bound applies."
    )
    require_one_slicing_argument: bool | None = strawberry.field(
        name="requireOneSlicingArgument", default=True, description="Whether exactly one slicing argument must be given."
    )


PAGED = ListSize(slicing_arguments=["first", "last"], sized_fields=["edges", "nodes"], assumed_size=20, require_one_slicing_argument=False)
