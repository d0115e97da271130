"""Who may read a field: the directive that says so and the check that does so, as one thing."""

from typing import Any

from graphql import GraphQLError
from strawberry.extensions.field_extension import AsyncExtensionResolver, FieldExtension, SyncExtensionResolver
from strawberry.types.field import StrawberryField

from models.enums import Scope
from schema.context import Context, Info
from schema.directives import RequiresScopes
from schema.errors import refused


def check(context: Context, *scopes: Scope) -> None:
    """Raise UNAUTHENTICATED without a credential, and FORBIDDEN with `requiredScopes` when it lacks one of the scopes."""
    if context.caller is None:
        raise unauthenticated()
    if not set(scopes) <= set(context.caller.scopes):
        names = [scope.name for scope in scopes]
        raise refused("FORBIDDEN", f"The credential lacks a scope that this needs: {', '.join(names)}.", requiredScopes=names)


def unauthenticated() -> GraphQLError:
    """The error of a guarded field that is read without a credential."""
    return refused("UNAUTHENTICATED", "A credential is needed: send `Authorization: Bearer` with an API key or a session token.")


class Requires(FieldExtension):
    """Guards a field by scopes, and shows them as `@requiresScopes`."""

    def __init__(self, *scopes: Scope) -> None:
        """Guard by all of the scopes."""
        self.scopes = scopes

    def apply(self, field: StrawberryField) -> None:
        """Put the directive on the field."""
        if not any(isinstance(each, RequiresScopes) for each in field.directives):
            field.directives = [RequiresScopes(scopes=list(self.scopes)), *field.directives]

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        """Check, then read the field."""
        check(info.context, *self.scopes)
        return next_(source, info, **arguments)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        """Check, then read the field."""
        check(info.context, *self.scopes)
        return await next_(source, info, **arguments)


class SignedIn(FieldExtension):
    """Guards a field that needs a signed-in person and no scope."""

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        """Check, then read the field."""
        if info.context.caller is None:
            raise unauthenticated()
        if info.context.caller.user_id is None or info.context.caller.key_id is not None:
            raise refused("FORBIDDEN", "Only a signed-in person can do this; a key cannot.", requiredScopes=[])
        return await next_(source, info, **arguments)


def requires(*scopes: Scope) -> list[FieldExtension]:
    """The `extensions` of a field that needs all of the scopes."""
    return [Requires(*scopes)]
