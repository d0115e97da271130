"""The house rules of the contract: what its comments promise at the top, checked on the whole of it and on its operations."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from graphql import (
    DocumentNode,
    FieldNode,
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
    InlineFragmentNode,
    ListValueNode,
    OperationDefinitionNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    build_schema,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
    is_specified_scalar_type,
    parse,
    validate,
    validate_schema,
    visit,
)

HERE = Path(__file__).parent
PAGING = ["first", "after", "last", "before"]

MONEY_NAMES = re.compile(r"amount|charge|cost|price|balance|usd|spent|spend|held|available|margin|floor|carry|value$|cap$", re.IGNORECASE)
MONEY_TYPES = {"Money", "MicroUsd", "Decimal"}
NAMED_LIKE_MONEY = {
    *("RateLimit.cost", "ClientToken.requestCap", "ClientTokenCreateInput.requestCap", "ActivityPeak.value"),
    *("TopUpTerms.minimumUsd", "TopUpTerms.maximumUsd", "TopUpTerms.suggestedUsd"),
    *("Tag.value", "UsageDimensionValues.tagValue", "HttpHeader.value"),
}
"""Points, counts, texts and whole dollars whose names look like money."""
RATIOS = re.compile(r"percent|share|rate$|coverage|progress|^p\d\d$|average|overheadMs|PerLine|Rate$")
INSTANTS = re.compile(r"At$|^(start|end|at|time)$|(From|Until|Start|End)$")
DAYS = re.compile(r"On$|^(first|last)$")
FOREIGN_WORDS = re.compile(r"Plan|Allowance|Instance|Transaction|Provider(Key|Cost)|CreditLine|(?<!Api)(?<!Client)Token$")
WITHOUT_SCOPE = {"workspaceCreate", "invitationAccept"}
MAKES_MONEY_OR_WORK = {"amount", "amountUsd", "charge", "tierId", "rows"}
SETTINGS = ("autoTopUp", "usageRecordAdjust")
"""Mutations whose inputs name money and which, repeated, change nothing more."""

Member = GraphQLField | GraphQLInputField | GraphQLArgument
WithFields = GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType


@cache
def contract() -> GraphQLSchema:
    """The contract, parsed."""
    return build_schema((HERE / "schema.graphql").read_text(encoding="utf-8"))


@cache
def operations() -> DocumentNode:
    """The operations, parsed."""
    return parse((HERE / "operations.graphql").read_text(encoding="utf-8"))


def types() -> Iterator[GraphQLNamedType]:
    """Every type of ours."""
    for kind in contract().type_map.values():
        if not kind.name.startswith("__") and not (isinstance(kind, GraphQLScalarType) and is_specified_scalar_type(kind)):
            yield kind


def fields() -> Iterator[tuple[str, WithFields, str, GraphQLField | GraphQLInputField]]:
    """Every field of ours: where it is, its type, its name, itself."""
    for kind in types():
        if isinstance(kind, WithFields):
            for name, member in kind.fields.items():
                yield f"{kind.name}.{name}", kind, name, member


def scopes(member: Member) -> list[str]:
    """The scopes that a field's `@requiresScopes` names."""
    for directive in (member.ast_node.directives if member.ast_node else None) or ():
        if directive.name.value == "requiresScopes":
            value = (directive.arguments or ())[0].value
            assert isinstance(value, ListValueNode)
            return [str(getattr(each, "value", "")) for each in value.values]
    return []


def has(member: Member, directive: str) -> bool:
    """Whether a directive is applied."""
    return any(each.name.value == directive for each in (member.ast_node.directives if member.ast_node else None) or ())


def mutations() -> dict[str, GraphQLField]:
    """The mutations by name."""
    kind = contract().type_map["Mutation"]
    assert isinstance(kind, GraphQLObjectType)
    found: dict[str, GraphQLField] = kind.fields
    return found


def test_the_contract_is_a_valid_schema() -> None:
    """graphql-core finds nothing wrong with it, and nothing in it is deprecated yet."""
    assert validate_schema(contract()) == []
    assert [where for where, _, _, member in fields() if member.deprecation_reason] == []


def test_everything_is_described_in_sentences() -> None:
    """Rule 9: types, fields, arguments and enum values, each with a sentence."""
    found: list[tuple[str, str | None]] = [(kind.name, kind.description) for kind in types()]
    for where, _, _, member in fields():
        found.append((where, member.description))
        if isinstance(member, GraphQLField):
            found += [(f"{where}({name})", argument.description) for name, argument in member.args.items()]
    for kind in types():
        if isinstance(kind, GraphQLEnumType):
            found += [(f"{kind.name}.{name}", value.description) for name, value in kind.values.items()]
    assert [where for where, text in found if not text or not re.match(r"[`A-Z0-9]", text) or text.rstrip()[-1] not in ".`?"] == []


def test_what_has_an_id_is_a_node() -> None:
    """Rule 1: identity is Node's."""
    objects = [kind for kind in types() if isinstance(kind, GraphQLObjectType)]
    assert [kind.name for kind in objects if "id" in kind.fields and "Node" not in {each.name for each in kind.interfaces}] == []


def test_connections_are_relay_s() -> None:
    """Rule 2: a list that can grow takes Relay's four arguments first, tells its size, and has edges, nodes and page information."""
    wrong = []
    for where, _, _, member in fields():
        if not isinstance(member, GraphQLField) or not get_named_type(member.type).name.endswith("Connection"):
            continue
        if list(member.args)[:4] != PAGING or not has(member, "listSize"):
            wrong.append(where)
    for kind in types():
        if kind.name.endswith("Connection"):
            assert isinstance(kind, GraphQLObjectType)
            edge = contract().type_map.get(f"{kind.name.removesuffix('Connection')}Edge")
            if (
                not {"edges", "nodes", "pageInfo"} <= set(kind.fields)
                or not isinstance(edge, GraphQLObjectType)
                or not {"cursor", "node"} <= set(edge.fields)
            ):
                wrong.append(kind.name)
    assert wrong == []


def test_lists_hold_no_nulls_but_those_of_nodes() -> None:
    """A list's items are there; only `nodes(ids:)` keeps the places of what is missing."""
    wrong = []
    for where, _, name, member in fields():
        inner = get_nullable_type(member.type)
        if is_list_type(inner) and not is_non_null_type(inner.of_type) and name != "nodes":
            wrong.append(where)
    assert wrong == []


def test_a_mutation_has_one_input_a_payload_and_user_errors() -> None:
    """Rules 3 and 4: nounVerb(input: NounVerbInput!): NounVerbPayload, whose results may be absent and whose userErrors may not."""
    wrong = []
    for name, member in mutations().items():
        noun = name[0].upper() + name[1:]
        payload = contract().type_map.get(f"{noun}Payload")
        shaped = (
            list(member.args) == ["input"]
            and str(member.args["input"].type) == f"{noun}Input!"
            and str(member.type) == f"{noun}Payload"
            and isinstance(payload, GraphQLObjectType)
            and str(payload.fields["userErrors"].type) == "[UserError!]!"
            and not any(is_non_null_type(result.type) for field, result in payload.fields.items() if field != "userErrors")
        )
        if not shaped:
            wrong.append(name)
    assert wrong == []


def test_money_is_exact_and_only_ratios_are_floats() -> None:
    """Rule 5: what is named like money is Money, MicroUsd or Decimal; a Float is a ratio, a mean or a duration."""
    wrong = []
    for where, _, name, member in fields():
        named = get_named_type(member.type)
        number = named.name in ("Int", "SafeInt", "Float", "String", "ID")
        if MONEY_NAMES.search(name) and number and where not in NAMED_LIKE_MONEY and not name.endswith(("Id", "Name")):
            wrong.append(where)
        if named.name == "Float" and not RATIOS.search(name):
            wrong.append(where)
    assert wrong == []
    assert set(contract().type_map) >= MONEY_TYPES


def test_instants_and_days_are_named_so() -> None:
    """Rule 6: an instant ends in At, a day in On."""
    wrong = []
    for where, _, name, member in fields():
        named = get_named_type(member.type).name
        if (named == "DateTime" and not INSTANTS.search(name)) or (named == "Date" and not DAYS.search(name)):
            wrong.append(where)
    assert wrong == []


def test_words_are_the_architecture_s() -> None:
    """Rule 7: no type is named with another system's word."""
    assert [kind.name for kind in types() if FOREIGN_WORDS.search(kind.name)] == []


def test_a_guarded_field_is_nullable_and_says_its_scope() -> None:
    """Rule 10: FORBIDDEN on one field leaves the rest of the answer whole, and the description names what the directive hides."""
    wrong = []
    for where, kind, _, member in fields():
        needed = [] if isinstance(kind, GraphQLInputObjectType) else scopes(member)
        if needed and is_non_null_type(member.type) and kind.name != "Subscription":
            wrong.append(f"{where}: non-null")
        if kind.name != "Operator" and any(f"`{scope}`" not in (member.description or "") for scope in needed):
            wrong.append(f"{where}: does not say {needed}")
    assert wrong == []


def test_every_mutation_needs_a_scope_but_two() -> None:
    """Only a signed-in person's own steps need none: making a workspace, taking an invitation."""
    assert {name for name, member in mutations().items() if not scopes(member)} == WITHOUT_SCOPE


def test_what_makes_money_or_work_takes_an_idempotency_key() -> None:
    """Rule 11; and an update says what an absent field means."""
    wrong = []
    for name in mutations():
        kind = contract().type_map[f"{name[0].upper()}{name[1:]}Input"]
        assert isinstance(kind, GraphQLInputObjectType)
        if MAKES_MONEY_OR_WORK & set(kind.fields) and not name.startswith(SETTINGS) and "idempotencyKey" not in kind.fields:
            wrong.append(name)
        if name.endswith("Update") and "absent field stays" not in (kind.description or ""):
            wrong.append(name)
    assert wrong == []


def test_every_type_is_reachable() -> None:
    """Nothing is in the contract that no operation can meet; Scope is met in the directive."""
    reached: set[str] = set()
    waiting: list[GraphQLNamedType] = [
        root for root in (contract().query_type, contract().mutation_type, contract().subscription_type) if root
    ]
    while waiting:
        kind = waiting.pop()
        if kind.name in reached:
            continue
        reached.add(kind.name)
        if is_abstract_type(kind):
            waiting += contract().get_possible_types(kind)
        if isinstance(kind, WithFields):
            for member in kind.fields.values():
                waiting.append(get_named_type(member.type))
                if isinstance(member, GraphQLField):
                    waiting += [get_named_type(argument.type) for argument in member.args.values()]
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            waiting += kind.interfaces
    assert {kind.name for kind in types()} - reached == {"Scope"} - reached


def test_the_operations_are_valid_and_read_everything() -> None:
    """Every operation validates; every root field is called, and every object type read, by one of them."""
    assert validate(contract(), operations()) == []
    called = {
        selection.name.value
        for node in operations().definitions
        if isinstance(node, OperationDefinitionNode)
        for selection in node.selection_set.selections
        if isinstance(selection, FieldNode)
    }
    roots = [root for root in (contract().query_type, contract().mutation_type, contract().subscription_type) if root]
    assert [name for root in roots for name in root.fields if name not in called] == []

    info, read = TypeInfo(contract()), set()

    class Reading(Visitor):
        def enter_field(self, *_: object) -> None:
            parent = info.get_parent_type()
            if parent:
                read.add(parent.name)

        def enter_inline_fragment(self, node: InlineFragmentNode, *_: object) -> None:
            if node.type_condition:
                read.add(node.type_condition.name.value)

    visit(operations(), TypeInfoVisitor(info, Reading()))
    unread = [kind.name for kind in types() if is_object_type(kind) and kind.name not in read]
    assert [name for name in unread if not name.endswith(("Edge", "Error", "Payload", "Connection"))] == []
