"""What is left out of a translated request because its model cannot do it, as the catalogue says."""

from collections.abc import Container

import msgspec

from models.enums import ModelCapability
from proxy import splice

_CONFIG = "output_config"


def fitted(body: bytes, capabilities: Container[ModelCapability]) -> bytes:
    """Take effort and thinking out of a translated body for a model that does not reason: tools ask every model for them, and many refuse.

    Bodies that pass untranslated are never changed so: there the provider's own words tell the tool what to leave out.
    """
    if ModelCapability.REASONING in capabilities:
        return body
    for name in ("reasoning_effort", "thinking"):
        body = splice.drop(body, name)
    span = splice.fields(body).get(_CONFIG)
    if span is None:
        return body
    config = splice.drop(body[span.start : span.end], "effort")
    return splice.drop(body, _CONFIG) if msgspec.json.decode(config) == {} else splice.put(body, {_CONFIG: config})
