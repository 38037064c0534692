"""The words of sample libraries: what a word in a file's name says its sound is.

Invariant: keys are lower-case words as `filename` splits them, in the singular; tags are the
search terms that they stand for. A word that means two things in names is not here.
"""

from samplemind.audio.hints import Kind

KIND_WORDS: dict[str, Kind] = {
    "loop": Kind.LOOP,
    "groove": Kind.LOOP,
    "beat": Kind.LOOP,
    "break": Kind.LOOP,
    "breakbeat": Kind.LOOP,
    "phrase": Kind.LOOP,
    "riff": Kind.LOOP,
    "toploop": Kind.LOOP,
    "drumloop": Kind.LOOP,
    "oneshot": Kind.ONE_SHOT,
    "hit": Kind.ONE_SHOT,
    "stab": Kind.ONE_SHOT,
}
KIND_PAIRS: dict[tuple[str, str], Kind] = {("one", "shot"): Kind.ONE_SHOT}

_TAG_WORDS = {
    # Drums
    "kick": "kick kik kck bd kickdrum bassdrum",
    "snare": "snare snr sn sd snaredrum",
    "clap": "clap clp cp handclap",
    "snap": "snap fingersnap",
    "rim": "rim rimshot sidestick",
    "hat": "hat hihat hh highhat chh ohh hhc hho oh openhat closedhat",
    "open hat": "ohh hho oh openhat",
    "closed hat": "chh hhc closedhat",
    "tom": "tom floortom",
    "cymbal": "cymbal cym cy crash ride splash china",
    "crash": "crash",
    "ride": "ride",
    "splash": "splash",
    "china": "china",
    "perc": "perc percussion percussive conga bongo shaker tambourine tamb cowbell clave "
    "woodblock triangle cabasa maraca guiro timbale djembe tabla cajon udu",
    "conga": "conga",
    "bongo": "bongo",
    "shaker": "shaker",
    "tambourine": "tambourine tamb",
    "cowbell": "cowbell",
    "clave": "clave",
    "woodblock": "woodblock",
    "triangle": "triangle",
    "maraca": "maraca",
    "guiro": "guiro",
    "timbale": "timbale",
    "djembe": "djembe",
    "tabla": "tabla",
    "drums": "drum drumkit drumloop breakbeat",
    "break": "break breakbeat",
    "fill": "fill",
    "808": "808",
    "909": "909",
    # Tonal
    "bass": "bass bassline subbass reese",
    "sub": "sub subbass",
    "synth": "synth synthesizer synthesiser",
    "pad": "pad",
    "lead": "lead",
    "pluck": "pluck plucked",
    "arp": "arp arpeggio arpeggiated",
    "chord": "chord",
    "stab": "stab",
    "keys": "keys keyboard clav clavinet harpsichord",
    "piano": "piano pno",
    "electric piano": "rhodes wurlitzer wurli",
    "organ": "organ hammond",
    "guitar": "guitar gtr guit",
    "strings": "string violin viola cello fiddle pizzicato orchestra",
    "brass": "brass trumpet trombone tuba horn",
    "woodwind": "woodwind flute clarinet oboe bassoon sax saxophone",
    "sax": "sax saxophone",
    "flute": "flute",
    "mallet": "mallet marimba vibraphone vibe xylophone glockenspiel kalimba",
    "bell": "bell chime",
    "harp": "harp",
    "choir": "choir choral",
    "vocal": "vocal vox voc voice acapella acappella vocoder sung singer",
    # Everything else
    "fx": "fx sfx effect efx riser uplifter downlifter impact whoosh sweep",
    "riser": "riser uplifter",
    "downlifter": "downlifter",
    "impact": "impact",
    "sweep": "sweep whoosh",
    "noise": "noise hiss static",
    "scratch": "scratch",
    "vinyl": "vinyl",
    "glitch": "glitch",
    "ambient": "ambient ambience ambi atmo atmos atmosphere drone texture soundscape",
    "drone": "drone",
    "foley": "foley",
}
TAGS_OF_WORD: dict[str, tuple[str, ...]] = {}
for _tag, _words in _TAG_WORDS.items():
    for _word in _words.split():
        TAGS_OF_WORD[_word] = (*TAGS_OF_WORD.get(_word, ()), _tag)

TAGS_OF_PAIR: dict[tuple[str, str], tuple[str, ...]] = {
    ("hi", "hat"): ("hat",),
    ("high", "hat"): ("hat",),
    ("open", "hat"): ("hat", "open hat"),
    ("closed", "hat"): ("hat", "closed hat"),
    ("open", "hh"): ("hat", "open hat"),
    ("closed", "hh"): ("hat", "closed hat"),
    ("open", "hihat"): ("hat", "open hat"),
    ("closed", "hihat"): ("hat", "closed hat"),
    ("hat", "open"): ("hat", "open hat"),
    ("hat", "closed"): ("hat", "closed hat"),
    ("hh", "open"): ("hat", "open hat"),
    ("hh", "closed"): ("hat", "closed hat"),
    ("hihat", "open"): ("hat", "open hat"),
    ("hihat", "closed"): ("hat", "closed hat"),
    ("side", "stick"): ("rim",),
    ("cross", "stick"): ("rim",),
    ("cow", "bell"): ("perc", "cowbell"),
    ("wood", "block"): ("perc", "woodblock"),
    ("electric", "piano"): ("electric piano",),
    ("bass", "drum"): ("kick",),
    ("steel", "drum"): ("mallet",),
    ("snare", "drum"): ("snare",),
}
PAIRS_WITHOUT_PARTS = frozenset({("bass", "drum"), ("cow", "bell"), ("steel", "drum")})

# A number after one of these is a model, a count or a level, and never a tempo.
NOT_BEFORE_TEMPO = frozenset(
    {
        "bank", "cc", "cs", "dmx", "drumtraks", "dx", "jp", "juno", "jupiter", "kit", "layer",
        "minimoog", "moog", "mpc", "ms", "no", "note", "nr", "op", "pack", "part", "patch", "pos",
        "preset", "program", "sample", "set", "sh", "sp", "take", "tb", "tr", "track", "vel",
        "velocity", "ver", "version", "vol", "volume", "cr",
    }
)  # fmt: skip
NOT_AFTER_TEMPO = frozenset({"bar", "bit", "cents", "db", "hz", "k", "khz", "ms", "sec"})

# Folders of these names sort a pack's files, and are no pack themselves.
SORTING_WORDS = frozenset(
    {
        "aiff", "audio", "dry", "flac", "loop", "mp3", "mono", "ogg", "oneshot", "one", "sample",
        "shot", "sound", "stem", "stereo", "wav", "wet", "bpm", "misc", "instrument", "and", "the",
    }
)  # fmt: skip
