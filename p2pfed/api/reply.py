"""What every reply of the admin API is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

FOREIGN_CHARACTERS = 200
"""Of one text that came from elsewhere; what follows is cut off."""


def printable(text: str) -> str:
    """A text of foreign origin, short and without control characters, so that it cannot command a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:FOREIGN_CHARACTERS])


ForeignText = Annotated[str, AfterValidator(printable)]


class Reply(BaseModel):
    """A frozen JSON object; every field is always present, null where it is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
