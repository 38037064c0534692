"""The text search configurations that files and queries may be indexed and read in.

Invariant: every value is a configuration that the migrations made, so it may stand in SQL as an
identifier. All fold accents and keep stop words: "A minor" and "off beat" must survive.
"""

from enum import StrEnum


class TextConfiguration(StrEnum):
    """A PostgreSQL text search configuration: how words become what is indexed."""

    ENGLISH = "samplemind"
    SIMPLE = "samplemind_simple"  # words as they are, for names in no particular language
    DANISH = "samplemind_danish"
    DUTCH = "samplemind_dutch"
    FINNISH = "samplemind_finnish"
    FRENCH = "samplemind_french"
    GERMAN = "samplemind_german"
    ITALIAN = "samplemind_italian"
    NORWEGIAN = "samplemind_norwegian"
    PORTUGUESE = "samplemind_portuguese"
    RUSSIAN = "samplemind_russian"
    SPANISH = "samplemind_spanish"
    SWEDISH = "samplemind_swedish"
    TURKISH = "samplemind_turkish"


def configuration_for(language: str | None, default: TextConfiguration) -> TextConfiguration:
    """Return the configuration of a language's English name; the default where it has none."""
    if language is None:
        return default
    try:
        return TextConfiguration[language.strip().upper()]
    except KeyError:
        return default
