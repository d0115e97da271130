"""GET /v1/models: what may be called, in rows that satisfy the clients of both inference dialects at once."""

from bisect import bisect_left, bisect_right
from datetime import datetime
from typing import Literal

from pydantic import Field

from domain.access.callers import Caller
from domain.errors import InvalidInput, UnknownModel
from domain.money.catalogue import ModelView
from rest.callers import Headers, header
from rest.doors import Ask, Document, Operation
from rest.fields import Asked, Integer, Nothing, Told
from rest.shapes import AnthropicError, OpenAIError, of_dialect

DEFAULT_MODELS, MOST_MODELS = 20, 1000


class ModelRow(Told):
    """A model, with the fields of the Models API and those of Chat Completions."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: datetime
    lifecycle: Literal["active", "deprecated", "retired"]
    retires_at: datetime | None
    max_input_tokens: int | None
    max_tokens: int | None


class ModelList(Told):
    """Every model, as Chat Completions lists them."""

    object: Literal["list"] = "list"
    data: list[ModelRow]


class ModelPage(Told):
    """A page of models, as the Models API lists them."""

    data: list[ModelRow]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ModelsQuery(Asked):
    """Which page to list; only the Models API has pages."""

    limit: Integer = Field(default=DEFAULT_MODELS, ge=1, le=MOST_MODELS)
    after_id: str | None = None
    before_id: str | None = None


def _anthropic(headers: Headers) -> bool:
    """Tell whether a client of the Models API asks: every one of them says which version it speaks."""
    return header(headers, b"anthropic-version") is not None


def _row(name: str, model: ModelView, caller: Caller) -> ModelRow:
    retiring = model.retires_at is not None
    return ModelRow(
        id=name,
        created=int(model.created_at.timestamp()),
        owned_by=model.vendor or "tallygate",
        display_name=model.display_name,
        created_at=model.created_at,
        lifecycle="retired" if model.retires_at is not None and model.retires_at <= caller.at else "deprecated" if retiring else "active",
        retires_at=model.retires_at,
        max_input_tokens=model.context_window,
        max_tokens=model.max_output_tokens,
    )


async def _list(ask: Ask[ModelsQuery]) -> ModelList | ModelPage:
    named = {name: model for model in ask.runtime.routes.offered() for name in (model.name, *model.aliases)}
    names = sorted(named)
    if not _anthropic(ask.headers):
        return ModelList(data=[_row(name, named[name], ask.caller) for name in names])
    after, before, limit = ask.given.after_id, ask.given.before_id, ask.given.limit
    if after is not None and before is not None:
        raise InvalidInput("before_id: goes not with after_id", path=("before_id",))
    if before is not None:
        names = names[: bisect_left(names, before)]
        page, more = names[-limit:], len(names) > limit
    else:
        names = names[bisect_right(names, after) if after is not None else 0 :]
        page, more = names[:limit], len(names) > limit
    rows = [_row(name, named[name], ask.caller) for name in page]
    return ModelPage(data=rows, has_more=more, first_id=page[0] if page else None, last_id=page[-1] if page else None)


async def _find(ask: Ask[Nothing]) -> ModelRow:
    name = ask.path["id"]
    for model in ask.runtime.routes.offered():
        if name in (model.name, *model.aliases):
            return _row(name, model, ask.caller)
    raise UnknownModel(f"There is no model `{name[:200]}`. GET /v1/models lists those that there are.", path=("model",))


DOCUMENT = Document(
    name="Gateway: models",
    shape=of_dialect,
    errors=AnthropicError | OpenAIError,
    api_key_field=True,
    operations=(
        Operation("GET", "/v1/models", "Every name that a call may give as its model.", ModelsQuery, ModelList | ModelPage, _list, refusals=(400,)),
        Operation("GET", "/v1/models/{id:path}", "One model, by its name or an alias.", Nothing, ModelRow, _find, refusals=(404,)),
    ),
)
