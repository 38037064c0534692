"""A vocabulary as sample libraries have it: the field's words first, then made-up names."""

import functools
import random

WORDS = 60_000

_FIELD = """
kick snare hat clap bass synth pad lead vocal perc tom ride crash fx riser impact sweep noise chord
pluck stab arp guitar piano strings brass flute bell organ choir texture drone ambient atmosphere
melody groove break fill top drum percussion shaker tambourine conga bongo rim cowbell sub reese
growl wobble acid house techno trance dubstep trap hiphop garage jungle funk soul jazz disco lofi
vintage analog digital modular tape vinyl dusty dark bright warm cold deep hard soft wide mono
stereo dry wet clean dirty distorted filtered reversed pitched chopped layered punchy tight fat thin
huge tiny long short fast slow wild smooth rough raw crisp airy muddy metallic wooden glass plastic
organic electric acoustic live studio field city rain wind ocean forest machine robot space cosmic
lunar solar neon velvet golden silver crystal shadow ghost phantom dream night midnight sunrise
summer winter storm thunder fire ice smoke dust echo pulse signal
"""
_ONSETS = "b bl br ch d dr f fl g gl gr h j k kl kr l m n p pl pr r s sh sk sl sp st t tr v w z"
_NUCLEI = "a e i o u ai ea ee io oa oo ou"
_CODAS = "- b d f g k l m n nd ng nk p r rk rn s sh st t th x z"


@functools.cache
def vocabulary(seed: int) -> list[str]:
    """Return `WORDS` different words, commonest first."""
    chance = random.Random(seed)
    onsets, nuclei, codas = (
        text.replace("-", "").split(" ") for text in (_ONSETS, _NUCLEI, _CODAS)
    )
    words = dict.fromkeys(_FIELD.split())
    while len(words) < WORDS:
        syllables = (
            chance.choice(onsets) + chance.choice(nuclei) + chance.choice(codas)
            for _ in range(chance.randint(1, 3))
        )
        words["".join(syllables)] = None
    return list(words)
