"""Stanford's PTB tokenizer imitated in pure Python, for captions.

The rules were found by asking the Java tokenizer (Stanford CoreNLP 3.4.1, the one inside pycocoevalcap), not
by reading it: about made-up strings, every word of two to four letters, and 18,700 sentences of software
manuals, of which 1.6 % differ. Known differences: a lone letter before a caption's final full stop ("shirt
size b."), where Java's answer depends on the next caption in the file; file names, version numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# pycocoevalcap's list of dropped tokens, less its upper-case brackets: tokens come lower-cased ("-lrb-"), so
# brackets stay in everybody's scores. So does "?!", which the list has not.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Characters that the tokenizer rewrites; where its own choice is dropped later, any dropped mark will do.
_REWRITTEN = str.maketrans(
    dict.fromkeys('"“”«»', " ' ")
    | dict.fromkeys("–—", " -- ")
    | {"’": "'", "‘": " ` ", "…": " ... ", "\u200b": " "}
    | {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3"}
)
_EMOJI = re.compile("[\U00010000-\U0010ffff]")  # beyond 16 bits: Java's tokenizer loses them
_BRACKETS = {"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_RENAMED = _BRACKETS | {"£": "#", "€": "$", "¢": "cents", "&amp;": "&"}

# Words that keep a full stop: always, if capitalised, before a number. No other word of two to four letters
# does: "sun." and "sat." are no abbreviations.
_ABBREVIATIONS = (
    r"adj|adm|adv|al|ala|alex|apr|ariz|assn|assoc|asst|atty|aug|ave|bhd|bldg|blvd|brig|bros|calif|capt|cf"
    r"|cie|cmdr|co|col|colo|comdr|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|elec|ens|esq|est|etc|ext|feb"
    r"|fla|fri|ft|ga|gen|gov|govs|hon|inc|ind|insp|intl|invt|jan|jos|jr|jul|jun|kan|kans|ky|lieut|lt|ltd"
    r"|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mont|mr|mrs|ms|msgr|mt|mtg|natl|neb|nev|nov|oct|okla"
    r"|penn|pfc|ph|plc|ppte|ppty|pres|prof|pte|ptes|pty|ptys|pvt|rd|rep|reps|rev|rt|sen|sens|sep|sept|seq"
    r"|sfc|sgt|spc|sq|sr|st|ste|supt|sys|tel|tenn|thu|thurs|treas|tue|tues|univ|va|vs|vt|wed|wis|wisc|wm|wyo"
    r"|ph\.d"
)
_CAPITALISED = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_NUMBERED = "art|ca|figs?|nos?|op|pp|prop"
# A capitalised one of these after a lone letter and a full stop begins a sentence ("plan b. The dog").
_STARTERS = (
    "A|An|The|This|That|These|There|It|He|She|They|We|You|Some|Many|In|At|But|As|One|Her|Their|Our"
    "|If|When|While|What"
)
_CLIPPED = "dunkin|nothin|ol|somethin"  # words that keep a final apostrophe

_WORD = r"[^\W_]+"
_HYPHENATED = rf"{_WORD}(?:-{_WORD})*"
_TOKEN = re.compile(
    rf"""
      (?!(?:cannot|gonna|gotta|wanna|lemme|gimme)\b)[a-z]+(?!\S)             # a plain word: most tokens
    | <(?:/?[a-z][^<>]*|!--.*?--)>                                            # a tag
    | https?://[^\s"<>]+ | www\.[\w./-]*\w | [\w.+-]+@[\w-]+(?:\.[\w-]+)*     # addresses
    | [:;=]-?[()] | [:;=]-?[DP]\b                                             # smileys
    | \(\d\d\d\)(?=[ ]?\d\d\d-\d\d\d\d\b)                                     # an area code
    | [@\#][a-z]\w* | \bc\+\+ | \b[cf]\#
    | \b(?:{_ABBREVIATIONS}|(?-i:{_CAPITALISED}))\.(?!\w) | \b(?:{_NUMBERED})\.(?=[ ]?\d) | {_WORD}\.(?=,)
    # a lone letter loses its stop where a sentence ends
    | \b[a-z](?=\.(?:$|[ ]+(?-i:{_STARTERS})\b))
    | \b(?:[a-z]\.)+(?:(?:-{_WORD})+|(?![\w.])) | \b[a-z](?:\.[a-z])+\b(?!['&/-])
    | 'n' | '(?:s|m|d|ll|re|ve|em|cause|till?|t|n)\b | '\d0s\b | n't\b | 't(?=is\b|was\b) | \by'(?=all\b)
    | \b(?:can(?=not\b)|gon(?=na\b)|got(?=ta\b)|wan(?=na\b)|lem(?=me\b)|gim(?=me\b))
    | \b(?:[old]'[a-z]{{2,}}|s'mores|ma'am|cap'n|n?e'er|hawai'i|(?:{_CLIPPED})')
    | \b[a-z]+?(?=n't\b)
    | \d+:\d\d(?=[ap]\.?m\b) | \d+\.\d+(?=[a-z]+\b)                           # 8:30pm, 1.5x
    | [-+]?(?:\d+(?:[.,:]\d+)*|(?<!\w)\.\d+(?:[.,:]\d+)*)(?![^\W_]|[-/]\w)
    | (?-i:[A-Z]+(?:&[A-Z]+)+)\b                                              # AT&T
    | {_WORD}(?:[._!?]{_WORD})+ | {_HYPHENATED}(?:/{_HYPHENATED}){{0,2}}
    | _+ | \*+ | \#{{2,}} | -{{5,}} | [!?]+ | &amp;
    | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)


def one_line(caption: str) -> str:
    """White space of any kind, line and paragraph separators included, to single spaces."""
    return " ".join(caption.split())


def tokenize(captions: Sequence[str]) -> list[str]:
    """Lower-cased tokens of each caption, joined by single spaces, without the marks in `DROPPED`."""
    result = []
    for caption in captions:
        text = _EMOJI.sub(" ", one_line(caption).translate(_REWRITTEN))
        tokens = [_RENAMED.get(token, token) for token in _TOKEN.findall(text)]
        joined = " ".join(token for token in tokens if token not in DROPPED)
        result.append(joined.lower().replace("(", "-lrb-").replace(")", "-rrb-"))
    return result
