"""The language of `reviews`: a small grammar, as data.

A symbol stands for a choice between texts, all equally likely; ``{other}`` in a text is a symbol to
be replaced in turn. Nothing random is here, that is in `_reviews`.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["GRAMMAR"]


def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text; "_" is a space inside one."""
    return tuple(word.replace("_", " ") for word in text.split())


# The most usual words come first; "praise" and "blame" repeat those below.
_PRAISE = _words("""good great wonderful funny brilliant excellent beautiful clever touching gripping
superb charming fresh moving fantastic delightful memorable witty convincing stunning impressive
enjoyable perfect lovely subtle intelligent powerful original warm elegant thrilling believable
tender graceful stylish inspired amusing riveting vivid refreshing flawless magical haunting
authentic sharp honest""")
_BLAME = _words("""bad boring terrible awful dull stupid poor predictable weak silly horrible lame slow
annoying ridiculous pointless cheap disappointing tedious wooden shallow flat clumsy confusing
forgettable lazy mediocre painful bland tasteless ugly sloppy cliched pretentious dreary lifeless
incoherent unbearable irritating laughable hollow messy stale dismal amateurish tiresome""")
_LIKED = _words("loved enjoyed liked admired adored appreciated")
_LIKE = _words("love enjoy like admire adore appreciate")
_HATED = _words("hated disliked regretted despised loathed resented")
_HATE = _words("hate dislike regret despise loathe resent")

# What is said of a film if the writer means well; `_mirrored` makes the opposite of each.
_MEANT_WELL = {
    "good": (
        *("{praise}",) * 7,
        *("{very} {praise}",) * 4,
        "{praise} and {praise}",
        *("{not} {blame}",) * 3,
        "{not} {very} {blame}",
    ),
    "praise": (*_PRAISE, *_PRAISE[:20], *_PRAISE[:8], *_PRAISE[:8]),
    "enjoyed": (
        *_LIKED,
        *(f"{{deeply}} {verb}" for verb in _LIKED),
        *(f"did not {verb}" for verb in _HATE[:3]),
        *(f"didn't {verb}" for verb in _HATE[:3]),
        *(f"never {verb}" for verb in _HATED[:2]),
    ),
    "favour": (
        "The {part} is {good}",
        "The {part} was {good}",
        "The {part} is {good}, and the {part} is {good}",
        "The {part} seemed {good} to me",
        "I found the {part} {good}",
        "I thought that the {part} was {good}",
        "To me this {film} is {good}",
        "This {film} is {good}",
        "{who} is {good} as the {job}",
        "{who} was {good}",
        "A {film} with {part} that is {good}",
        "I {enjoyed} the {part}",
        "I {enjoyed} it",
        "{friend} and I {enjoyed} every minute",
        "{friend} {enjoyed} this {film}",
        "It's {good}",
        "{part}: {good}; {part}: {good}",
    ),
    "even_so": (
        "Although the {part} is {bad}, this {film} is {good}",
        "The {part} may be {bad}, but the {part} is {good}",
        "Some say it is {bad}; for me it was {good}",
        "I expected something {bad}, yet the {part} was {good}",
        "{who} is {bad}, but {who} is {good}",
    ),
}
_OPPOSITES = (("good", "bad"), ("praise", "blame"), ("enjoyed", "endured"))

# What has nothing to do with the writer's opinion, kind or unkind words included.
_NEUTRAL: dict[str, Sequence[str]] = {
    "very": _words("very really truly so quite rather pretty extremely totally just"),
    "deeply": _words("really truly quite totally just"),
    "not": ("not", "not", "never", "hardly", "far from", "anything but", "nowhere near"),
    "part": _words("""acting plot script story dialogue music ending cast direction pacing humour soundtrack
        photography editing camera_work opening romance villain hero premise costumes scenery
        animation lighting sound tone atmosphere writing action suspense"""),
    "film": _words("film movie picture story thriller drama comedy western remake sequel"),
    "job": _words("""detective teacher soldier doctor singer thief widow farmer journalist student pilot king
        lawyer gangster nurse painter priest sailor cook spy"""),
    "who": _words("""Anna_Marlow Peter_Stone Maria_Vance Tom_Harding Julia_Reed Karl_Benson
        Lucy_Adams Victor_Hale Emma_Brook Daniel_Frost Rosa_Klein Henry_Walsh"""),
    "friend": ("My wife", "My husband", "My brother", "My friends", "The children", "My mother"),
    "place": _words("Paris London Texas Berlin Tokyo Rome Chicago Brooklyn Alaska Ireland Cuba"),
    "year": [str(year) for year in range(1931, 2012, 3)],
    "deed": (
        "loses a brother in the war",
        "finds an old letter",
        "falls in love with a {job}",
        "has to leave {place}",
        "meets a {praise} {job}",
        "meets a {blame} {job}",
        "looks for a stolen painting",
        "wakes up without a name",
        "inherits a house in {place}",
        "is hunted by a {job}",
    ),
    "aside": (
        "The story is about a {job} who {deed}",
        "A {job} from {place} {deed}, then {deed}",
        "It is set in {place} in {year}",
        "{who} plays a {job} who {deed}",
        "{who} directed it in {year}, after a {film} about a {job}",
        "I saw it in {place} with {who} in the audience",
        "We watched the {film} on television in {year}",
        "The poster calls it {praise}, the newspaper calls it {blame}",
        "{who}, known for a {praise} {film} of {year}, wrote the script",
        "{who}, known for a {blame} {film} of {year}, wrote the script",
        "It's based on a {film} of {year}",
        "It runs for two hours",
    ),
}


def _mirrored(text: str) -> str:
    """Swap the symbols that speak well and ill."""
    for well, ill in _OPPOSITES:
        text = text.replace(f"{{{well}}}", "{}").replace(f"{{{ill}}}", f"{{{well}}}")
        text = text.replace("{}", f"{{{ill}}}")
    return text


GRAMMAR: dict[str, tuple[str, ...]] = {
    **{symbol: tuple(texts) for symbol, texts in _NEUTRAL.items()},
    **_MEANT_WELL,
    "bad": tuple(_mirrored(text) for text in _MEANT_WELL["good"]),
    "blame": (*_BLAME, *_BLAME[:20], *_BLAME[:8], *_BLAME[:8]),
    "endured": (
        *_HATED,
        *(f"{{deeply}} {verb}" for verb in _HATED),
        *(f"did not {verb}" for verb in _LIKE[:3]),
        *(f"didn't {verb}" for verb in _LIKE[:3]),
        *(f"never {verb}" for verb in _LIKED[:2]),
    ),
    "complaint": tuple(_mirrored(text) for text in _MEANT_WELL["favour"]),
    "even_though": tuple(_mirrored(text) for text in _MEANT_WELL["even_so"]),
}
