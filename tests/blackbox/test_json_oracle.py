"""The scanner and the splice editor against Python's json module, over generated documents and damaged ones.

Python's parser is the reference with the differences that are known: it accepts NaN and Infinity, and a lone
surrogate stays one where ours gives U+FFFD.
"""

import json
import os
import random
import subprocess

import pytest

PDCTL = os.environ.get("PDCTL", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/pdctl"))
TOOLS = os.path.join(os.path.dirname(PDCTL), "tests/tools")  # the same variant as the program under test
TYPES = {"{": 1, "[": 2, '"': 3, "t": 5, "f": 6, "n": 7}
CASES = int(os.environ.get("PDCTL_ORACLE_CASES", "4000"))


@pytest.fixture(scope="module")
def probe():
    program = os.path.join(TOOLS, "json_probe")
    if not os.path.exists(program):
        pytest.skip(f"{program} is not built; make tools builds it")

    def run(lines):
        done = subprocess.run([program], input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        answers = done.stdout.split("\n")[:-1]
        assert len(answers) == len(lines)
        return answers

    return run


def random_text(rng):
    pieces = ["a", "session", "\n", '"', "\\", "/", "\0", "\x1f", "\x7f", "é", "你好", "😀", "some plain words ", "\u2028", "}", "]", ","]
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(8)))


def random_value(rng, depth):
    kind = rng.randrange(9 if depth else 6)
    if kind == 0:
        return random_text(rng)
    if kind == 1:
        return rng.choice([0, -1, 7, 2**53 + 1, 10**30, -(10**18), rng.randrange(150000)])
    if kind == 2:
        return rng.choice([0.5, -1e300, 1e-7, 3.0])
    if kind < 6:
        return [True, False, None][kind - 3]
    if kind == 6:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    if kind == 7:
        return [rng.randrange(10 ** rng.randrange(1, 7)) for _ in range(rng.randrange(60))]
    return {random_text(rng): random_value(rng, depth - 1) for _ in range(rng.randrange(5))}


def random_document(rng):
    value = {rng.choice(["a", "b", "user", random_text(rng)]): random_value(rng, 3) for _ in range(rng.randrange(8))}
    style = rng.randrange(4)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=2 if style == 0 else None, separators=[None, (",", ":"), (" , ", " :"), (", ", ": ")][style])
    return value, text.encode("utf-8", "surrogatepass")


def strict(text):
    """What the scanner must accept: RFC 8259, valid UTF-8."""

    def refuse(name):
        raise ValueError(name)

    pairs = json.loads(text.decode("utf-8"), parse_constant=refuse, object_pairs_hook=lambda p: ("object", p))
    if not isinstance(pairs, tuple):
        raise ValueError("not an object")
    return pairs[1]


def check_scan(text, answer):
    try:
        want = strict(text)
    except (ValueError, RecursionError):
        assert answer.startswith("invalid "), (text, answer)
        return
    assert not answer.startswith("invalid"), (text, answer)
    got = json.loads(answer)
    assert len(got) == len(want), text
    for (name, kind, raw), (want_name, want_value) in zip(got, want):
        assert name == want_name.encode("utf-8", "replace").decode() or any(0xD800 <= ord(c) < 0xE000 for c in want_name), text
        assert kind == TYPES.get(raw[0], 4), text
        assert raw == raw.strip()
        assert json.loads(raw, object_pairs_hook=lambda p: ("object", p)) == want_value, text


def test_documents_are_read_as_python_reads_them(probe):
    rng = random.Random(1)
    texts = [random_document(rng)[1] for _ in range(CASES)]
    for text, answer in zip(texts, probe(["scan " + t.hex() for t in texts])):
        check_scan(text, answer)


def damage(rng, text):
    text = bytearray(text)
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(len(text))
        kind = rng.randrange(4)
        if kind == 0:
            del text[at]
        elif kind == 1:
            text[at] = rng.choice(b'{}[]",:\\0e-.\x00\x1f\x80\xc3\xed\xf4 ')
        elif kind == 2:
            text.insert(at, rng.choice(b'{}[]",:\\019e-+. \n\xa0'))
        else:
            del text[at:]
        if not text:
            return b" "
    return bytes(text)


def test_damaged_documents_get_the_same_verdict(probe):
    rng = random.Random(2)
    texts = [damage(rng, random_document(rng)[1]) for _ in range(3 * CASES)]
    answers = probe(["scan " + t.hex() for t in texts])
    for text, answer in zip(texts, answers):
        check_scan(text, answer)
    invalid = sum(a.startswith("invalid") for a in answers)
    assert CASES / 10 < invalid < 3 * CASES - CASES / 10, "the damage is neither always nor never fatal"


def test_edits_are_what_python_would_have_done(probe):
    rng = random.Random(3)
    cases = []
    for _ in range(CASES):
        value, text = random_document(rng)
        edits, line = {}, "edit " + text.hex()
        for name in rng.sample(["a", "b", "user", "kv_transfer_params", "é\"\\"], rng.randrange(5)):
            edits[name] = rng.choice([None, {"x": [1, 2]}, 5, "s", {}])
            new = "-" if edits[name] is None else json.dumps(edits[name]).encode().hex()
            line += f" {name.encode().hex()} {new}"
        cases.append((value, text, edits, line))
    for (value, text, edits, _), answer in zip(cases, probe([c[3] for c in cases])):
        edited = bytes.fromhex(answer)
        for name, new in edits.items():
            if new is None:
                value.pop(name, None)
            else:
                value[name] = new
        got = json.loads(edited)
        assert got == value, (text, edits, edited)
        assert list(got) == list(value), "the order of the members stays"
        if not edits:
            assert edited == text
