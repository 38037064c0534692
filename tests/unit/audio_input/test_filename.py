"""A name says what its words say, and nothing that a number or a letter only looks like."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.audio.filename import printable_path, read_name, split_words
from samplemind.audio.hints import Kind

PACK = Path("/srv/samples/Deep House Pack")


@pytest.mark.parametrize(
    ("name", "tempo_bpm"),
    [
        ("SM_NP_100_electric_guitar_baby_Dmaj.wav", 100),
        ("Loop_128bpm_F#m.wav", 128),
        ("loop 128 BPM.wav", 128),
        ("BPM 90 test.wav", 90),
        ("bpm_174_amen.wav", 174),
        ("groove-92.5bpm.wav", 92.5),
        ("groove 92,5 bpm.wav", 92.5),
        ("_128_Fmin.wav", 128),
        ("DrumLoop_128.wav", 128),
        ("120 Drum Loop.wav", 120),
        ("kick_03-final.wav", None),
        ("Kick 100.wav", None),
        ("100 Kick.wav", None),
        ("BD0120.wav", None),
        ("kick120_soft.wav", None),
        ("TR-808 Kick.wav", None),
        ("tr 101 kick soft.wav", None),
        ("juno 106 pad.wav", None),
        ("sine_100_hz_test.wav", None),
        ("rhodes 64 127 mf.wav", None),
        ("rain_2024_field.wav", None),
        ("loop_90_120_double.wav", None),
        ("999bpm.wav", None),
        ("10 bpm.wav", None),
        ("take 120 loop.wav", None),
    ],
)
def test_a_tempo_is_a_marked_number_or_one_where_packs_put_it(
    name: str, tempo_bpm: float | None
) -> None:
    assert read_name(PACK / name).tempo_bpm == tempo_bpm


def test_a_tempo_may_stand_on_the_folder() -> None:
    assert read_name(PACK / "120 BPM" / "beat1.wav").tempo_bpm == 120
    assert read_name(PACK / "120" / "beat1.wav").tempo_bpm is None
    assert read_name(PACK / "120 BPM" / "beat 90bpm.wav").tempo_bpm == 90


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("SM_NP_100_electric_guitar_baby_Dmaj.wav", "D major"),
        ("Loop_128bpm_F#m.wav", "F# minor"),
        ("bass_Abmin_120.wav", "G# minor"),
        ("lead A minor.wav", "A minor"),
        ("lead_a_minor.wav", "A minor"),
        ("vox_Bb major.wav", "A# major"),
        ("Arp C Sharp Minor.wav", "C# minor"),
        ("arp_Eflat_maj.wav", "D# major"),
        ("Pad [Cb maj].wav", "B major"),
        ("120Cmin_arp.wav", "C minor"),
        ("PAD GMAJ.wav", "G major"),
        ("pad_E♭m.wav", "D# minor"),
        ("Am_pluck.wav", "A minor"),
        ("A_kick.wav", None),
        ("B.wav", None),
        ("am i here.wav", None),
        ("FM Bell.wav", None),
        ("Dm7 chord.wav", None),
        ("Cmaj9 stab.wav", None),
        ("admin.wav", None),
        ("Major Tom.wav", None),
        ("Dmaj to Amin.wav", None),
        ("Gm and Gmin again.wav", "G minor"),
        ("stab_C#.wav", None),
        ("Hmin.wav", None),
    ],
)
def test_a_key_is_a_note_with_its_mode(name: str, key: str | None) -> None:
    assert read_name(PACK / name).key == key


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("drum loop 1.wav", Kind.LOOP),
        ("DrumLoops_1.wav", Kind.LOOP),
        ("amen_break.wav", Kind.LOOP),
        ("vox-one-shot.wav", Kind.ONE_SHOT),
        ("OneShot_03.wav", Kind.ONE_SHOT),
        ("brass stabs.wav", Kind.ONE_SHOT),
        ("Loops/perc 1.wav", Kind.LOOP),
        ("One Shots/perc 1.wav", Kind.ONE_SHOT),
        ("Loops/perc oneshot.wav", Kind.ONE_SHOT),
        ("Loops and One Shots/perc.wav", None),
        ("kick.wav", None),
        ("breakfast.wav", None),
    ],
)
def test_a_kind_is_a_word_of_the_name_before_its_folder(name: str, kind: Kind | None) -> None:
    assert read_name(PACK / name).kind is kind


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("bd_haus.flac", ("kick",)),
        ("KickHard01.wav", ("kick",)),
        ("Bass Drum 1.wav", ("kick",)),
        ("Bass 1.wav", ("bass",)),
        ("OpenHat 12.wav", ("hat", "open hat")),
        ("HHClosed_01.wav", ("hat", "closed hat")),
        ("hi-hats.wav", ("hat",)),
        ("Snares/01.wav", ("snare",)),
        ("Kicks/tight snare.wav", ("snare", "kick")),
        ("808 sub.wav", ("808", "sub")),
        ("Cowbell.wav", ("perc", "cowbell")),
        ("RhodesChords.wav", ("electric piano", "chord")),
        ("Acoustic Guitar.wav", ("guitar",)),
        ("vox_fx.wav", ("vocal", "fx")),
        ("kicking_tomorrow.wav", ()),
        ("xyz.wav", ()),
    ],
)
def test_tags_are_words_of_the_trade(name: str, tags: tuple[str, ...]) -> None:
    assert read_name(PACK / name).tags == tags


def test_the_pack_is_the_nearest_folder_that_only_sorts_nothing() -> None:
    assert read_name(PACK / "Kicks" / "01.wav").pack == "Deep House Pack"
    assert read_name(PACK / "Drum Loops" / "120 BPM" / "01.wav").pack == "Deep House Pack"
    assert read_name(Path("kick.wav")).pack is None
    assert read_name(PACK / "kick.wav", root=PACK).pack is None


def test_words_part_at_case_digits_and_signs() -> None:
    assert split_words("HHClosed_03b-Final (v2)") == (
        *("hh", "closed", "03", "b", "final", "v", "2"),
    )
    assert split_words("Überklang élan") == ("überklang", "élan")


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"kick\xff\xfe.wav", "kick"),
        (b"kick\nsnare\r\t\x1b[31m.wav", "kick snare [31m"),
        ("kick\u202egnp.wav".encode(), "kick gnp"),
        (b"   .wav", "untitled"),
        (("é" * 127).encode() + b"a", "é" * 127 + "a"),
        ("ｋｉｃｋ.wav".encode(), "kick"),
    ],
)
def test_a_hostile_name_becomes_printable_text(raw: bytes, title: str) -> None:
    evidence = read_name(PACK / os.fsdecode(raw))

    assert evidence.title.replace("\ufffd", "").strip() == title
    assert all(text.isprintable() for text in (evidence.title, *evidence.tokens))


def test_a_path_is_itself_if_it_is_text_and_told_apart_if_not() -> None:
    assert printable_path(Path("/a/Ünï ♯.wav")) == "/a/Ünï ♯.wav"
    first, second = (printable_path(Path(os.fsdecode(b"/a/" + b))) for b in (b"\xff", b"\xfe"))
    assert first != second
    assert first.encode()


@given(st.text(max_size=300))
def test_no_name_is_too_strange_to_be_read(name: str) -> None:
    evidence = read_name(Path(name))

    json.dumps([evidence.title, evidence.tags, evidence.pack], ensure_ascii=False).encode()
    assert evidence.title
    assert len(evidence.tokens) <= 64
    assert evidence.tempo_bpm is None or 30 <= evidence.tempo_bpm <= 300


@given(st.binary(max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw))
def test_no_bytes_are_too_strange_to_be_a_name(raw: bytes) -> None:
    path = Path(os.fsdecode(raw))
    read_name(path).title.encode()
    printable_path(path).encode()
