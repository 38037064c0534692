"""Drum hits of the kits that Debian's `hydrogen-drumkits` and `hydrogen-data` install, by class.

The kit Audiophob is left out: the shipped projection was fitted on it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

FOLDER = Path("/usr/share/hydrogen/data/drumkits")
FITTED = "Audiophob"
# A fixed half: what may be looked at while the embedding is changed. The others judge it, once.
CHOSEN_ON = frozenset(
    {
        "BJA_Pacific",
        "ElectricEmpireKit",
        "GMRockKit",
        "HardElectro1",
        "Millo_MultiLayered2",
        "TR808EmulationKit",
        "VariBreaks",
        "rumpf_kit_z01_h2",
    }
)
# The first pattern that an instrument's name holds gives its class; None leaves it out.
CLASSES: tuple[tuple[str, str | None], ...] = (
    (r"cajon|agogo|waterglass|snaps|click|zap|fx\b|whistle", None),
    (r"(dununba|kenkeni|sangban)1 bell|cow", "cowbell"),
    (r"snare.*rimshot", "snare"),
    (r"hat.*\b(open|op|semi)|side ohh|open.?(hi.?)?hat|open hh|hi hat free", "open_hat"),
    (r"(hat|hh).*pedal|pedal.*(hat|hh)", "pedal_hat"),
    (r"clap", "clap"),
    (r"rim|stick", "rim"),
    (r"hat|hh\b", "closed_hat"),
    (r"snare", "snare"),
    (r"kick|bass ?drum", "kick"),
    (r"head (hit|mute)|conga|bongo|djembe|drum \d", "conga"),
    (r"\btom", "tom"),
    (r"ride|bell", "ride"),
    (r"crash|cymbal|splash|china", "crash"),
    (r"shaker|maraca|tambourine", "shaker"),
    (r"clave|wood", "wood"),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A file of a kit and the class that its instrument's name states."""

    path: Path
    kit: str
    label: str


def drum_class(instrument: str) -> str | None:
    name = instrument.lower().replace("_", " ")
    return next((label for pattern, label in CLASSES if re.search(pattern, name)), None)


def _plain_xml(path: Path) -> ElementTree.Element:
    """A kit's description without its namespaces, which differ between kits."""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r'\s(xmlns(:\w+)?|xsi:\w+)="[^"]*"', "", text)
    return ElementTree.fromstring(text)  # noqa: S314  # files of an installed Debian package


def installed_hits() -> list[Hit]:
    """Every labelled file of every kit but the fitted one; empty where none is installed."""
    hits: dict[Path, Hit] = {}
    for description in sorted(FOLDER.glob("*/drumkit.xml")):
        folder = description.parent
        if folder.name == FITTED:
            continue
        for instrument in _plain_xml(description).iter("instrument"):
            label = drum_class(instrument.findtext("name") or "")
            for element in instrument.iter("filename"):
                path = folder / (element.text or "")
                if label and path.is_file():
                    hits.setdefault(path, Hit(path, folder.name, label))
    return list(hits.values())
