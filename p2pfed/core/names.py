"""Names that people could take for others: what a name must not hold, and which two are hardly told apart.

The scripts of letters are taken from the beginnings of their Unicode names (`LATIN SMALL LETTER A`), for the standard
library does not tell them. Names of banks and admins are ASCII: of these it is enough to know which letters and digits
look alike.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

TOGETHER = frozenset(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "KATAKANA-HIRAGANA"))
"""Scripts that names of East Asia mix; they are counted as one."""
INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that show nothing, of which Unicode's categories say nothing either."""
_ALIKE = str.maketrans({"1": "l", "I": "l", "0": "o", "O": "o"})


def deceptive(text: str) -> str:
    """Why a text could be taken for another one; empty if it hardly can."""
    if not text.isprintable() or INVISIBLE & set(text) or text != " ".join(text.split()):
        return "has characters that are not seen, or spaces where none are expected"
    if not unicodedata.is_normalized("NFKC", text):
        return "is not in Unicode's form NFKC: one of its characters has another, usual spelling"
    letters = {unicodedata.name(c, "?").split()[0] for c in text if unicodedata.category(c)[0] == "L"}
    scripts = sorted({"CJK" if script in TOGETHER else script for script in letters})
    if len(scripts) > 1:
        return f"mixes letters of several scripts, which may look alike: {' and '.join(scripts).lower()}"
    return ""


def look_alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Those of different ASCII `names` that hardly differ: by l, 1 and I, by 0 and O, or by capitals."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[name.translate(_ALIKE).lower()].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]
