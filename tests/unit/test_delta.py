"""Deltas between bundles: exact, small where little changed, refused where they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_shared import archive, delta
from embridge_shared.delta import DeltaTarget, apply_delta, delta_name, make_delta, ways
from embridge_shared.errors import DataError, ModelError, Reason
from support.bundles import make_bundle

NAMES = st.sampled_from(["a", "b.onnx", "c.npy"])
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=300), min_size=1)


def target(base: bytes, new: bytes, release: str = "embridge-2") -> DeltaTarget:
    return DeltaTarget(
        release=release, digest=hashlib.sha256(new).hexdigest(), size=len(new), base=hashlib.sha256(base).hexdigest()
    )


@given(MEMBERS, MEMBERS)
def test_any_archive_is_made_from_any_other(old, new):
    base, wanted = archive.pack(old), archive.pack(new)
    assert apply_delta(base, make_delta(base, wanted), target(base, wanted)) == wanted


@given(MEMBERS, MEMBERS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_delta_makes_the_signed_bundle_or_nothing(old, new, at, flip):
    base, wanted = archive.pack(old), archive.pack(new)
    made = bytearray(make_delta(base, wanted))
    made[at % len(made)] ^= flip
    try:
        assert apply_delta(base, bytes(made), target(base, wanted)) == wanted
    except ModelError:
        return


def weights(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 0.05, 20_000).astype(np.float32)


def test_little_changed_is_little_sent():
    rng = np.random.default_rng(0)
    head = weights(rng)
    int8 = rng.normal(0, 20, 50_000).round().astype(np.int8)
    moved = int8 + (rng.random(int8.shape) < 0.05).astype(np.int8)
    old = {"encoder.onnx": head.tobytes(), "encoder.int8.onnx": int8.tobytes(), "card.md": b"# One\n" * 50}
    new = old | {
        "encoder.onnx": (head * (1 + 1e-5 * rng.normal(size=head.shape))).astype(np.float32).tobytes(),
        "encoder.int8.onnx": moved.tobytes(),
        "card.md": b"# One\n" * 49 + b"# Two\n",
    }
    base, wanted = archive.pack(old), archive.pack(new)
    made = make_delta(base, wanted)
    found = ways(made)
    assert found["encoder.int8.onnx"][0] == "diff"
    assert found["encoder.int8.onnx"][1] < 0.2 * len(int8)
    assert found["encoder.onnx"][0] == "words"
    assert ways(make_delta(base, base)) == dict.fromkeys(old, ("same", 0))
    assert apply_delta(base, made, target(base, wanted)) == wanted


def test_real_bundles(tmp_path: Path):
    old, new = (make_bundle(tmp_path, version).read_bytes() for version in (1, 2))
    assert len(make_delta(old, new)) < len(new) / 2
    assert delta_name("embridge-2", "ab" * 32) == "deltas/embridge-2.from-abababababababab"


def test_what_is_refused():
    base, wanted = archive.pack({"a": b"1" * 500}), archive.pack({"a": b"2" * 500})
    about, good = target(base, wanted), make_delta(base, wanted)
    for bad, reason in (
        (b"", Reason.FOREIGN),
        (good[:-1], Reason.MALFORMED),
        (good + b"\0", Reason.MALFORMED),
        (make_delta(wanted, wanted), Reason.HASH_MISMATCH),
        (make_delta(base, base), Reason.HASH_MISMATCH),
    ):
        with pytest.raises(ModelError) as caught:
            apply_delta(base, bad, about)
        assert caught.value.reason is reason
        assert caught.value.hint
    with pytest.raises(ModelError) as caught:
        apply_delta(wanted, good, about)
    assert caught.value.reason is Reason.HASH_MISMATCH
    with pytest.raises(ModelError):
        ways(b"nothing")
    with pytest.raises(DataError):
        make_delta(b"nothing", wanted)


@pytest.mark.parametrize("how", ["same", "near", "diff", "words", "whole", "else"])
def test_members_that_are_not_there_or_claim_too_much(how):
    base, wanted = archive.pack({"a": b"1" * 500}), archive.pack({"b": b"2" * 500})
    for size in (-1, 0, 500, 1 << 40):
        members = (delta._Member("b", how, size, b"\x28\xb5\x2f\xfd"),)
        body = delta._MAGIC + msgspec.msgpack.encode(delta._Delta(target(base, wanted).base, members))
        with pytest.raises(ModelError):
            apply_delta(base, body, target(base, wanted))
