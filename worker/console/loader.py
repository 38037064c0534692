"""The templates: our own, and Flower's with a few places mended.

Flower has no way to add to its navigation, so its templates are changed as they are read: our rooms
come into its navigation bar, our styles into its head, and its one inline script gets the nonce
that the content security policy asks for.

Invariant: each mended place is there exactly once. A Flower that was changed stops the console at
its start with the name of the template, rather than showing a page without its navigation.
"""

from pathlib import Path

import flower
from tornado.template import BaseLoader, Template

from samplemind.errors import SampleMindError

OWN = Path(__file__).parent / "templates"
FLOWERS = Path(flower.__file__).parent / "templates"

_ROOMS = '{% module Template("rooms.html", active_tab=active_tab) %}'
_USER = '{% module Template("user.html") %}'

_MENDS: dict[str, tuple[tuple[str, str], ...]] = {
    "base.html": (
        ("{% block title %}Flower{% end %}", "{% block title %}SampleMind{% end %}"),
        (
            "  </head>",
            '    {% module Template("head.html") %}\n  </head>',
        ),
    ),
    "navbar.html": (
        ("navbar-expand-lg", "navbar-expand-xl"),
        ("<span>Flower</span>", "<span>SampleMind</span>"),
        (
            '<ul class="app-nav navbar-nav">',
            f'<ul class="app-nav navbar-nav">{_ROOMS}',
        ),
        (
            '<ul class="app-nav app-nav-secondary navbar-nav ms-lg-auto">',
            f'<ul class="app-nav app-nav-secondary navbar-nav ms-xl-auto">{_USER}',
        ),
    ),
    "workers.html": (
        ('<script type="text/javascript">', '<script type="text/javascript" nonce="{{ nonce }}">'),
    ),
    "worker.html": (('<th style="width: 125px;"></th>', '<th class="worker-queue-action"></th>'),),
}


class Loader(BaseLoader):
    """Reads a template of ours, or else Flower's; what they show is escaped."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name: all templates lie side by side."""
        return name

    def _create_template(self, name: str) -> Template:
        return Template(read_source(name), name=name, loader=self)


def read_source(name: str) -> str:
    """Return the text of a template.

    Raises:
        SampleMindError: Flower's is not the one that our changes were made for.
    """
    own = OWN / name
    if own.is_file():
        return own.read_text()
    text = (FLOWERS / name).read_text()
    for place, mended in _MENDS.get(name, ()):
        if text.count(place) != 1:
            message = (
                f"Flower {flower.__version__}'s template {name} is not the one that the console "
                f"knows: {place!r} is there {text.count(place)} times"
            )
            raise SampleMindError(message)
        text = text.replace(place, mended)
    return text


def check_templates() -> None:
    """Read every template that is mended.

    Raises:
        SampleMindError: as `read_source`.
    """
    for name in _MENDS:
        read_source(name)
