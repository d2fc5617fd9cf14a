"""The Python tokenizer against what the Java one answers (recorded), and against Java itself where it is."""

from __future__ import annotations

import shutil

import pytest

from himap.errors import ConfigError, UserError
from himap.metrics import ptb
from himap.metrics.tokenizer import resolve, tokenize_java

RECORDED = [
    ("A man's dog isn't on the couch.", "a man 's dog is n't on the couch"),
    ("Two boys' bikes; they're red, aren't they?!", "two boys bikes they 're red are n't they ?!"),
    (
        "The black-and-white cat (left) can't be seen...",
        "the black-and-white cat -lrb- left -rrb- ca n't be seen",
    ),
    ('A sign that says "STOP" on St. James St.', "a sign that says stop on st. james st."),
    ("He sat in the sun.", "he sat in the sun"),
    ("A clock reads 8:30pm on Main Ave. at 5 p.m.", "a clock reads 8:30 pm on main ave. at 5 p.m."),
    (
        "1,000 people watch a 5-year-old's 3.5 m jump for $5.",
        "1,000 people watch a 5-year-old 's 3.5 m jump for $ 5",
    ),
    ("A U.S. flag, e.g. at 50% size, etc.", "a u.s. flag e.g. at 50 % size etc."),
    ('The kid\'s wearing an "I ♥ NY" t-shirt - grey/blue', "the kid 's wearing an i ♥ ny t-shirt grey/blue"),
    ("Rock 'n' roll player can not stop, cannot go", "rock 'n' roll player can not stop can not go"),
    (
        "I'm gonna eat s'mores, 'cause it's O'Neil's party!!",
        "i 'm gon na eat s'mores 'cause it 's o'neil 's party !!",
    ),
    ("What??  wow!", "what ?? wow"),
    ("Children’s toys – “old” ones…", "children 's toys old ones"),
    ("AT&T store & b&w photo", "at&t store & b & w photo"),
    ("no. 5 bus says no.", "no. 5 bus says no"),
    ("Plan b. The dog.", "plan b the dog"),
    (":) <b>bold</b> #tag @joe 2½ cups for 5¢", ":-rrb- <b> bold </b> #tag @joe 2 1/2 cups for 5 cents"),
    ("dog.The cat and/or hat", "dog.the cat and/or hat"),
    ("café naïve ½ [sic] {x}", "café naïve 1/2 -lsb- sic -rsb- -lcb- x -rcb-"),
    ("a 👍 b", "a b"),
    ("Harbour colour, grey theatre.", "harbour colour grey theatre"),
    ("22\u00a03/4 inch", "22 3/4 inch"),
    ("", ""),
]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java on PATH")


@pytest.mark.parametrize(("caption", "tokens"), RECORDED, ids=[caption[:24] for caption, _ in RECORDED])
def test_python_tokenizer_gives_the_recorded_tokens(caption: str, tokens: str) -> None:
    assert ptb.tokenize([caption]) == [tokens]


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_a_line_separator_is_a_space(separator: str) -> None:
    assert ptb.tokenize([f"a dog{separator}runs", "a cat"]) == ["a dog runs", "a cat"]


@pytest.mark.slow
@needs_java
def test_java_gives_the_recorded_tokens() -> None:
    pytest.importorskip("pycocoevalcap")
    # "22 3/4" is one token with a no-break space to Java; the scorer splits it again.
    said = tokenize_java([caption for caption, _ in RECORDED])
    assert [" ".join(line.split()) for line in said] == [tokens for _, tokens in RECORDED]


@pytest.mark.slow
@needs_java
def test_java_keeps_captions_in_step() -> None:
    pytest.importorskip("pycocoevalcap")
    captions = ["a dog\u2028runs", "", "a\x0ccat\r", "", "a cow", ""]
    assert tokenize_java(captions) == ["a dog runs", "", "a cat", "", "a cow", ""]


@pytest.mark.slow
@needs_java
def test_java_agrees_with_pycocoevalcap_s_wrapper() -> None:
    wrapper = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    captions = [caption for caption, _ in RECORDED if caption]
    theirs = wrapper.tokenize({i: [{"caption": caption}] for i, caption in enumerate(captions)})
    assert tokenize_java(captions) == [theirs[i][0] for i in range(len(captions))]


def test_auto_takes_java_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert resolve("auto") == resolve("python") == "python"
    with pytest.raises(UserError, match="tokenizer=java: no `java` on PATH"):
        resolve("java")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    assert (resolve("auto"), resolve("java"), resolve("python")) == ("java", "java", "python")
    with pytest.raises(ConfigError, match="tokenizer=nltk"):
        resolve("nltk")
