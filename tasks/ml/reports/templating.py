"""Render the Jinja templates in `templates/`: HTML pages, SVG charts, and code that users copy."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
UNESCAPED = ("py.jinja", "js.jinja", "sh.jinja")
"""Extensions of templates whose values are not escaped for HTML. Code is escaped when a page includes it."""


def render(template: str, **values: object) -> str:
    """Fill in a template. In HTML and SVG, every value is escaped unless the template marks it as safe.

    Raises:
        UndefinedError: the template uses a value that is not given.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    # Imported here, because most commands render nothing.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=(), disabled_extensions=UNESCAPED, default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters |= {"python": repr, "javascript": lambda value: json.dumps(value, ensure_ascii=False)}
    return environment
