"""A rich console that shows text as it is: control characters from files, names and servers are escaped."""

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hallmark.tasks.common.errors import printable, without_secrets


class Console(RichConsole):
    """rich's console without control characters and secrets in what it prints. Styles are kept."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's options
        """Convert a string as rich does, cleaned before its width is measured."""
        return super().render_str(clean(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, part by part, and clean the text of each part."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))

    def on_broken_pipe(self) -> None:
        """Leave the error to the command if stdout has no reader. On stderr nobody misses the lines: work goes on.

        rich would exit in both cases.
        """
        if not self.stderr:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def clean(text: str) -> str:
    """Return a text without secrets and control characters. Newlines and tabs are kept."""
    return printable(without_secrets(text), keep="\n\t")
