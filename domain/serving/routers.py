"""Logical models: a name such as `auto` that stands for several models, of which each call gets the one that its router chooses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid5

from domain.money.catalogue import ModelView, PriceVersion, quote
from models.enums import Bucket, ModelCapability

NAMES = UUID("0199f0a2-6f5d-7c14-9b1e-4d1a7c3e5b60")
"""The namespace of routers' ids: a name has the same id in every process."""
TYPICAL_OUTPUT_TOKENS = 1000
"""What an answer is taken to have, at most, where models are compared by what the call would cost."""
NO_CONVERSATION = frozenset({ModelCapability.EMBEDDINGS, ModelCapability.SPEECH, ModelCapability.TRANSCRIPTION})


@dataclass(frozen=True, slots=True)
class Features:
    """What a request needs of a model, beside room: to call tools, to see images or documents, and `kind`: what it does that is no conversation."""

    tools: bool = False
    images: bool = False
    kind: ModelCapability | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A model that a router may choose, under conditions that must all hold; None is no condition.

    `above_input_tokens` (exclusive) and `up_to_input_tokens` (inclusive) bound the counted input, `tools` and `images` say that the request must, or
    must not, have them, `up_to_picousd` bounds what the call would cost with TYPICAL_OUTPUT_TOKENS at most.
    """

    model: str
    weight: int = 1
    above_input_tokens: int | None = None
    up_to_input_tokens: int | None = None
    tools: bool | None = None
    images: bool | None = None
    up_to_picousd: int | None = None

    def holds(self, input_tokens: int, features: Features, picousd: int) -> bool:
        """Tell whether every condition holds."""
        return (
            (self.above_input_tokens is None or input_tokens > self.above_input_tokens)
            and (self.up_to_input_tokens is None or input_tokens <= self.up_to_input_tokens)
            and (self.tools is None or self.tools is features.tools)
            and (self.images is None or self.images is features.images)
            and (self.up_to_picousd is None or picousd <= self.up_to_picousd)
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a router may choose for a call, with the price that it would be charged at."""

    model: ModelView
    price: PriceVersion
    weight: int = 1

    def cost_picousd(self, input_tokens: int, output_tokens: int = TYPICAL_OUTPUT_TOKENS) -> int:
        """Return what a call would cost, in picodollars, with its input not cached."""
        return quote(self.price, {Bucket.UNCACHED_INPUT: input_tokens, Bucket.OUTPUT: output_tokens}, service_tier=None, geography=None).picousd


@dataclass(frozen=True, slots=True)
class Router:
    """A logical model. `targets` None means every model that is served.

    `choose`: `cheapest` for this very call, `listed` (the first that fits), or `weighted` (by share; a conversation stays with its model). What does
    not fit is no fallback either; what fits and is not chosen is.
    """

    name: str
    display_name: str
    choose: Literal["cheapest", "listed", "weighted"] = "cheapest"
    targets: tuple[Rule, ...] | None = None

    def fitting(self, targets: Sequence[Target], *, input_tokens: int, max_output_tokens: int | None, features: Features) -> list[Target]:
        """Return the targets that can serve a request, in the router's order: it fits their context, they can do what it needs, a rule lets it in."""
        able = {target.model.name: target for target in targets if _able(target.model, input_tokens, features)}
        output_tokens = TYPICAL_OUTPUT_TOKENS if max_output_tokens is None else min(max_output_tokens, TYPICAL_OUTPUT_TOKENS)
        if self.targets is None:
            return list(able.values())
        found: dict[str, Target] = {}
        for rule in self.targets:
            target = next((each for each in able.values() if rule.model in (each.model.name, *each.model.aliases)), None)
            if target is not None and target.model.name not in found and rule.holds(input_tokens, features, target.cost_picousd(input_tokens, output_tokens)):
                found[target.model.name] = Target(target.model, target.price, rule.weight)
        return list(found.values())

    def ordered(self, fitting: Sequence[Target], draw: Callable[[Target], float], input_tokens: int) -> list[Target]:
        """Return what fits, the choice first; `draw` is how strongly a conversation is drawn to a target."""
        if self.choose == "listed":
            return list(fitting)
        if self.choose == "weighted":
            return sorted(fitting, key=draw, reverse=True)
        return sorted(fitting, key=lambda target: (target.cost_picousd(input_tokens), target.model.name))


AUTO = Router("auto", "Auto")
"""What `auto` means where the configuration says nothing else: of the models that are served and can do what a call needs, the cheapest for it."""


def _able(model: ModelView, input_tokens: int, features: Features) -> bool:
    can = set(model.capabilities)
    return (
        (features.kind in can if features.kind is not None else ModelCapability.TOOLS in can or not can & NO_CONVERSATION)
        and (model.context_window is None or input_tokens <= model.context_window)
        and (not features.tools or ModelCapability.TOOLS in can)
        and (not features.images or ModelCapability.VISION in can)
    )


def router_view(router: Router, targets: Sequence[ModelView]) -> ModelView:
    """Return a router as a model: it can do what every one of its models can, and is as old as the oldest of them."""
    shared = set(targets[0].capabilities).intersection(*(model.capabilities for model in targets))
    return ModelView(
        id=uuid5(NAMES, router.name),
        name=router.name,
        display_name=router.display_name,
        aliases=(),
        vendor=None,
        context_window=None,
        max_output_tokens=None,
        capabilities=tuple(capability for capability in ModelCapability if capability in shared),
        created_at=min(model.created_at for model in targets),
        retires_at=None,
        routes_to=tuple(model.name for model in targets),
    )
