"""`samplemind analyze`: what the analysis finds in each file; nothing is stored."""

import sys
from pathlib import Path
from typing import Any

import click

from samplemind.audio.analysis import FileAnalysis, analyze_file
from samplemind.audio.discovery import find_audio_files
from samplemind.cli.output import error_console, json_option, print_json, print_table
from samplemind.cli.progress import track
from samplemind.settings import load_settings


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def analyze(paths: tuple[Path, ...], as_json: bool) -> None:
    """Print what the analysis finds in each file; folders stand for the audio files below them.

    Exits with 1 if no file could be analysed.

    Example: samplemind analyze loops/ --json
    """
    audio = load_settings().audio
    root, limits = audio.root, audio.limits()
    files = list(find_audio_files(paths))
    if not files:
        error_console.print("There are no audio files in what was named.")
    analyses = [analyze_file(file, root=root, limits=limits) for file in track(files, "Analysing")]
    if as_json:
        print_json({"files": [analysis.as_dict() for analysis in analyses]})
    else:
        print_table(
            ("file", "outcome", "seconds", "kind", "bpm", "key", "note", "LUFS", "tags or reason"),
            (_row(analysis) for analysis in analyses),
        )
    if files and not any(analysis.measurements for analysis in analyses):
        sys.exit(1)


def _row(analysis: FileAnalysis) -> tuple[object, ...]:
    found: dict[str, Any] = analysis.as_dict()
    return (
        analysis.path.name,
        found["outcome"],
        _rounded(found["duration_s"], 2),
        found["kind"],
        _rounded(found["tempo_bpm"], 1),
        found["key"],
        found["root_note"],
        _rounded(found["loudness_lufs"], 1),
        " ".join(found["tags"]) if analysis.measurements else analysis.message,
    )


def _rounded(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
