"""What is served is inside the contract: `schema.graphql` beside this file binds names, types, defaults, descriptions and directives."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
    is_specified_scalar_type,
    print_ast,
)

from tests.schema.serving import served_schema

CONTRACT = Path(__file__).with_name("schema.graphql")


@cache
def contract() -> GraphQLSchema:
    """The contract, parsed."""
    return build_schema(CONTRACT.read_text(encoding="utf-8"))


@cache
def served() -> GraphQLSchema:
    """What the server offers for download, parsed back, with its applied directives."""
    return build_schema(served_schema().sdl)


def types(schema: GraphQLSchema) -> Iterator[GraphQLNamedType]:
    """Every type of a schema but GraphQL's own."""
    for kind in schema.type_map.values():
        if not kind.name.startswith("__") and not (isinstance(kind, GraphQLScalarType) and is_specified_scalar_type(kind)):
            yield kind


Member = GraphQLField | GraphQLInputField | GraphQLArgument


def told(description: str | None) -> str:
    """A description without the way it was wrapped."""
    return " ".join((description or "").split())


def directives(member: Member) -> set[str]:
    """The applied directives of a field, with their arguments in a fixed order and without those that repeat a default."""
    node = member.ast_node
    found = set()
    for directive in (node.directives if node else None) or ():
        arguments = sorted(print_ast(argument) for argument in directive.arguments or ())
        found.add(f"@{directive.name.value}({', '.join(each for each in arguments if each != 'requireOneSlicingArgument: true')})")
    return found


def default(member: GraphQLInputField | GraphQLArgument) -> str | None:
    """A default as it is written."""
    node = member.ast_node
    return print_ast(node.default_value) if node and node.default_value else None


def differences() -> Iterator[str]:
    """Every way in which what is served is not the contract's."""
    for kind in types(served()):
        agreed = contract().type_map.get(kind.name)
        if agreed is None:
            yield f"{kind.name}: not in the contract"
            continue
        if type(agreed) is not type(kind):
            yield f"{kind.name}: another kind of type"
            continue
        if told(kind.description) != told(agreed.description):
            yield f"{kind.name}: {kind.description!r} is not {agreed.description!r}"
        if isinstance(kind, GraphQLScalarType):
            assert isinstance(agreed, GraphQLScalarType)
            if kind.specified_by_url != agreed.specified_by_url:
                yield f"{kind.name}: specified elsewhere"
        elif isinstance(kind, GraphQLEnumType):
            assert isinstance(agreed, GraphQLEnumType)
            for name, value in kind.values.items():
                if name not in agreed.values:
                    yield f"{kind.name}.{name}: not in the contract"
                elif told(value.description) != told(agreed.values[name].description):
                    yield f"{kind.name}.{name}: another description"
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            assert isinstance(agreed, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType)
            if not isinstance(kind, GraphQLInputObjectType) and not isinstance(agreed, GraphQLInputObjectType):
                extra = {each.name for each in kind.interfaces} - {each.name for each in agreed.interfaces}
                if extra:
                    yield f"{kind.name}: implements {extra}"
            if (
                isinstance(kind, GraphQLInputObjectType)
                and isinstance(agreed, GraphQLInputObjectType)
                and kind.is_one_of != agreed.is_one_of
            ):
                yield f"{kind.name}: @oneOf differs"
            for name, member in kind.fields.items():
                if name not in agreed.fields:
                    yield f"{kind.name}.{name}: not in the contract"
                else:
                    yield from of_member(f"{kind.name}.{name}", member, agreed.fields[name])


def of_member(where: str, member: Member, agreed: Member) -> Iterator[str]:
    """The differences of one field, argument or input field."""
    if str(member.type) != str(agreed.type):
        yield f"{where}: {member.type} is not {agreed.type}"
    if told(member.description) != told(agreed.description):
        yield f"{where}: {member.description!r} is not {agreed.description!r}"
    if directives(member) != directives(agreed):
        yield f"{where}: {directives(member)} is not {directives(agreed)}"
    if isinstance(member, GraphQLField):
        assert isinstance(agreed, GraphQLField)
        for name, argument in member.args.items():
            if name not in agreed.args:
                yield f"{where}({name}): not in the contract"
            else:
                yield from of_member(f"{where}({name})", argument, agreed.args[name])
    else:
        assert not isinstance(agreed, GraphQLField)
        if default(member) != default(agreed):
            yield f"{where}: default {default(member)} is not {default(agreed)}"


def test_whatever_is_served_has_the_contract_s_name_type_default_description_and_directives() -> None:
    """A client written against the contract meets nothing in the served schema that the contract does not say; what is missing is allowed."""
    assert list(differences()) == []


def test_required_inputs_of_the_contract_are_served() -> None:
    """A request that the contract allows is not refused for naming a field that the contract requires: every required input is served."""
    missing = [
        f"{kind.name}.{name}"
        for kind in types(served())
        if isinstance(kind, GraphQLInputObjectType)
        for name, member in contract().type_map[kind.name].fields.items()  # type: ignore[attr-defined]  # the same kind of type, as tested above
        if str(member.type).endswith("!") and default(member) is None and name not in kind.fields
    ]
    assert missing == []
