"""What an operation may ask for, told before it runs: its shape, and its cost in rate-limit points.

Each pass visits every fragment once for each way in which it can matter, and remembers: time grows with the document, never with what it
would expand to. (Strawberry's own MaxAliasesLimiter and QueryDepthLimiter expand, and so are exponential in fragments.)
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from graphql import (
    ASTValidationRule,
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
)
from strawberry.schema.schema_converter import GraphQLCoreConverter

from schema.directives import Cost, ListSize

MOST_TOKENS: Final = 2_000
MOST_OPERATIONS: Final = 10
MOST_FIELDS: Final = 500
MOST_ALIASES: Final = 30
MOST_DIRECTIVES: Final = 20
DEEPEST: Final = 16
"""The standard introspection query of graphql-js is 15 levels deep."""

MEMBER_COST: Final = 10_000
STRANGER_COST: Final = 500
UNSIZED_LIST: Final = 10
MUTATION_POINTS: Final = 10
INTROSPECTION: Final = {"__schema": 100, "__type": 10, "__typename": 0}
CEILING: Final = 10**9


class Shape(NamedTuple):
    """What an operation is once its fragments are put in place: levels, fields and aliases."""

    depth: int
    fields: int
    aliases: int


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    """The document's fragments by name."""
    return {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}


def operations_of(document: DocumentNode) -> list[OperationDefinitionNode]:
    """The document's operations, in the order written."""
    return [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]


def shape_of(operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> Shape:
    """Measure an operation. A fragment that spreads itself counts once; that it is refused is for validation to say."""
    known: dict[str, Shape] = {}
    open_fragments: set[str] = set()

    def of_set(selections: SelectionSetNode | None) -> Shape:
        depth = fields = aliases = 0
        for selection in selections.selections if selections else ():
            part = of_selection(selection)
            depth, fields, aliases = max(depth, part.depth), min(CEILING, fields + part.fields), min(CEILING, aliases + part.aliases)
        return Shape(depth, fields, aliases)

    def of_selection(selection: SelectionNode) -> Shape:
        if isinstance(selection, FieldNode):
            inner = of_set(selection.selection_set)
            return Shape(1 + inner.depth, 1 + inner.fields, inner.aliases + (selection.alias is not None))
        if isinstance(selection, InlineFragmentNode):
            return of_set(selection.selection_set)
        assert isinstance(selection, FragmentSpreadNode)
        name = selection.name.value
        if name not in known and name in fragments and name not in open_fragments:
            open_fragments.add(name)
            known[name] = of_set(fragments[name].selection_set)
            open_fragments.discard(name)
        return known.get(name, Shape(0, 0, 0))

    return of_set(operation.selection_set)


class Admission(ASTValidationRule):
    """The validation rule that refuses a document by its shape; its answer depends on the document only, so it can be remembered."""

    directives = 0

    def enter_document(self, document: DocumentNode, *_: object) -> None:
        """Report the first bound that the document breaks."""
        message = self._verdict(document)
        if message:
            self.report_error(GraphQLError(message, extensions={"code": "GRAPHQL_VALIDATION_FAILED"}))

    def enter_directive(self, node: DirectiveNode, *_: object) -> None:
        """Report the directive that is one too many."""
        self.directives += 1
        if self.directives == MOST_DIRECTIVES + 1:
            self.report_error(
                GraphQLError(
                    f"The document uses more than {MOST_DIRECTIVES} directives.", node, extensions={"code": "GRAPHQL_VALIDATION_FAILED"}
                )
            )

    @staticmethod
    def _verdict(document: DocumentNode) -> str | None:
        operations = operations_of(document)
        if len(operations) > MOST_OPERATIONS:
            return f"The document holds {len(operations)} operations; {MOST_OPERATIONS} are allowed."
        fragments = fragments_of(document)
        try:
            shapes = [shape_of(operation, fragments) for operation in operations]
        except RecursionError:
            return "The document is nested too deeply."
        for shape in shapes:
            if shape.depth > DEEPEST:
                return f"The operation is {shape.depth} levels deep; {DEEPEST} are allowed."
            if shape.fields > MOST_FIELDS:
                return f"The operation selects {shape.fields} fields; {MOST_FIELDS} are allowed."
            if shape.aliases > MOST_ALIASES:
                return f"The operation uses {shape.aliases} aliases; {MOST_ALIASES} are allowed."
        return None


class FieldPrice(NamedTuple):
    """What a field adds to an operation's cost, read from its `@cost` and `@listSize` once."""

    points: int
    child: GraphQLNamedType | None
    is_list: bool
    assumed_size: int | None
    slicing_arguments: tuple[str, ...]
    sized_fields: frozenset[str]
    defaults: Mapping[str, int]


class Prices:
    """What every field of a schema costs.

    An object that is answered costs one point, a list as many as it has items; `@cost` adds its weight each time the field is answered, and
    every mutation `MUTATION_POINTS`; scalars and enums are free. A list whose length nothing tells is taken to have `UNSIZED_LIST` items.
    """

    def __init__(self, schema: GraphQLSchema) -> None:
        """Read the directives of every field of the schema."""
        self._fields: dict[str, dict[str, FieldPrice]] = {}
        for kind in schema.type_map.values():
            if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not kind.name.startswith("__"):
                self._fields[kind.name] = {
                    name: _price(field, MUTATION_POINTS if kind is schema.mutation_type else 0) for name, field in kind.fields.items()
                }
        self._schema = schema

    def requested(self, operation: OperationDefinitionNode, document: DocumentNode, variables: Mapping[str, Any]) -> int:
        """The most points that the operation can cost with these variables, at most 10^9."""
        fragments = fragments_of(document)
        values = {**_defaults(operation), **variables}
        known: dict[tuple[str, int | None, frozenset[str]], int] = {}

        def of_set(selections: SelectionSetNode | None, kind: str, size: int | None, sized: frozenset[str]) -> int:
            total = 0
            for selection in selections.selections if selections else ():
                if isinstance(selection, FieldNode):
                    total += of_field(selection, kind, size, sized)
                elif isinstance(selection, InlineFragmentNode):
                    inner = selection.type_condition.name.value if selection.type_condition else kind
                    total += of_set(selection.selection_set, inner, size, sized)
                elif isinstance(selection, FragmentSpreadNode) and selection.name.value in fragments:
                    fragment = fragments[selection.name.value]
                    key = (selection.name.value, size, sized)
                    if key not in known:
                        known[key] = of_set(fragment.selection_set, fragment.type_condition.name.value, size, sized)
                    total += known[key]
            return min(CEILING, total)

        def of_field(node: FieldNode, kind: str, size: int | None, sized: frozenset[str]) -> int:
            name = node.name.value
            price = self._fields.get(kind, {}).get(name)
            if price is None:
                return INTROSPECTION.get(name, 0)
            if price.child is None:
                return price.points
            own = _slice(node, price, values)
            count = 1
            if price.is_list:
                count = size if name in sized and size is not None else UNSIZED_LIST if own is None else own
            inner_size, inner_sized = (own, price.sized_fields) if price.sized_fields else (None, frozenset[str]())
            return min(CEILING, price.points + count * (1 + of_set(node.selection_set, price.child.name, inner_size, inner_sized)))

        root = self._schema.get_root_type(operation.operation)
        return of_set(operation.selection_set, root.name, None, frozenset()) if root else 0

    def actual(self, operation: OperationDefinitionNode, document: DocumentNode, data: Mapping[str, Any] | None) -> int:
        """The points that the answer has cost, by the same prices and the lengths that its lists have turned out to have."""
        fragments = fragments_of(document)

        def of_set(selections: SelectionSetNode | None, kind: str, value: Mapping[str, Any]) -> int:
            return sum(of_field(node, parent, value) for node, parent in spread(selections, kind))

        def spread(selections: SelectionSetNode | None, kind: str) -> Iterator[tuple[FieldNode, str]]:
            for selection in selections.selections if selections else ():
                if isinstance(selection, FieldNode):
                    yield selection, kind
                elif isinstance(selection, InlineFragmentNode):
                    yield from spread(selection.selection_set, selection.type_condition.name.value if selection.type_condition else kind)
                elif isinstance(selection, FragmentSpreadNode):
                    fragment = fragments[selection.name.value]
                    yield from spread(fragment.selection_set, fragment.type_condition.name.value)

        def of_field(node: FieldNode, kind: str, value: Mapping[str, Any]) -> int:
            answered = node.alias.value if node.alias else node.name.value
            price = self._fields.get(kind, {}).get(node.name.value)
            if answered not in value:
                return 0
            if price is None:
                return INTROSPECTION.get(node.name.value, 0)
            found = value[answered]
            items = found if isinstance(found, list) else [found]
            child = price.child
            if child is None:
                return price.points
            return price.points + sum(1 + of_set(node.selection_set, child.name, item) for item in items if isinstance(item, dict))

        root = self._schema.get_root_type(operation.operation)
        return of_set(operation.selection_set, root.name, data) if root and data else 0


def _price(field: Any, points: int) -> FieldPrice:
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    cost = next((each for each in getattr(definition, "directives", ()) if isinstance(each, Cost)), None)
    size = next((each for each in getattr(definition, "directives", ()) if isinstance(each, ListSize)), None)
    named = get_named_type(field.type)
    defaults = {name: argument.default_value for name, argument in field.args.items() if type(argument.default_value) is int}
    return FieldPrice(
        points=points + (int(cost.weight) if cost else 0),
        child=named if is_composite_type(named) else None,
        is_list=is_list_type(get_nullable_type(field.type)),
        assumed_size=(size.assumed_size or None) if size else None,
        slicing_arguments=tuple(size.slicing_arguments or ()) if size else (),
        sized_fields=frozenset(size.sized_fields or ()) if size else frozenset(),
        defaults=defaults,
    )


def _slice(node: FieldNode, price: FieldPrice, variables: Mapping[str, Any]) -> int | None:
    """How many items a field's arguments ask for; what cannot be told yet, or will be refused, is the assumed size."""
    sizes = []
    for argument in node.arguments or ():
        if argument.name.value not in price.slicing_arguments:
            continue
        if isinstance(argument.value, IntValueNode):
            sizes.append(int(argument.value.value) if len(argument.value.value) < 10 else CEILING)
        elif isinstance(argument.value, VariableNode):
            value = variables.get(argument.value.name.value)
            if type(value) is int:
                sizes.append(min(CEILING, value))
    if sizes:
        return max(0, *sizes)
    given = [price.defaults[name] for name in price.slicing_arguments if name in price.defaults]
    return max(given) if given else price.assumed_size


def _defaults(operation: OperationDefinitionNode) -> dict[str, Any]:
    return {
        definition.variable.name.value: int(definition.default_value.value)
        for definition in operation.variable_definitions or ()
        if isinstance(definition.default_value, IntValueNode) and len(definition.default_value.value) < 10
    }
