"""Which upstream answers a model, in which dialect."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.errors import UnknownModel
from domain.money.catalogue import Book, ModelView


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider that calls may be sent to; `key` never prints. `models` None means every model of `vendor`."""

    name: str
    dialect: str
    url: str
    auth: str
    key: str | None = field(repr=False)
    models: tuple[str, ...] | None
    vendor: str | None
    rename: dict[str, str]

    def serves(self, model: ModelView) -> bool:
        """Tell whether the upstream answers this model."""
        return model.name in self.models if self.models is not None else model.vendor == self.vendor

    def named(self, model: str) -> str:
        """Return the name by which the upstream knows a model."""
        return self.rename.get(model, model)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes."""

    model: ModelView
    upstream: Upstream


class Routes:
    """The upstreams of this process, in the order of the configuration; the first that serves a model gets it, one of the caller's dialect before others."""

    def __init__(self, book: Book, upstreams: Sequence[Upstream]) -> None:
        self._book = book
        self.upstreams = tuple(upstreams)

    def find(self, name: str, dialect: str) -> Route:
        """Return where a model's calls in a dialect go: to an upstream of that dialect, else to one of another, in translation; raises UnknownModel."""
        model = self._book.find(name)
        if model is not None:
            serving = [upstream for upstream in self.upstreams if upstream.serves(model)]
            for upstream in sorted(serving, key=lambda upstream: upstream.dialect != dialect):
                return Route(model, upstream)
        raise UnknownModel(f"There is no model `{name[:200]}` on this route. GET /v1/models lists those that there are.")

    def offered(self) -> list[ModelView]:
        """Return the models that some upstream answers, by name."""
        return [model for model in self._book.models() if any(upstream.serves(model) for upstream in self.upstreams)]
