"""The release bundle: deterministic, complete, and refused when a single byte is not what it was."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_shared import archive
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.release import (
    CARD,
    ENCODER,
    FILES,
    GOLDEN,
    MANIFEST,
    PROTOTYPES,
    SCHEMA,
    Golden,
    Manifest,
    pack_array,
    pack_golden,
    parse_bundle,
    read_bundle,
    write_bundle,
)
from embridge_shared.scoring import PrototypeScorer
from support.bundles import G, M, embed, make_bundle, parts


@pytest.fixture(scope="module")
def bundle_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_bundle(tmp_path_factory.mktemp("release")).read_bytes()


def refused(data: bytes, digest: str = "") -> Reason:
    with pytest.raises(ModelError) as caught:
        parse_bundle(data, digest=digest)
    return caught.value.reason


def test_round_trip(tmp_path):
    manifest, files = parts()
    path = tmp_path / "a.embridge"
    digest = write_bundle(path, manifest, files)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    bundle = read_bundle(path, digest=digest)
    assert bundle.digest == digest
    assert bundle.files == files
    assert msgspec.structs.replace(bundle.manifest, files={}) == manifest
    assert bundle.manifest.release == "embridge-1"
    assert [p.name for p in tmp_path.iterdir()] == ["a.embridge"]
    assert np.allclose(bundle.scorer()(bundle.golden.queries), bundle.golden.scores, atol=1e-6)


def test_the_same_content_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert make_bundle(tmp_path / "a").read_bytes() == make_bundle(tmp_path / "b").read_bytes()


def test_ordinary_tools_can_open_it(bundle_bytes):
    with zipfile.ZipFile(io.BytesIO(bundle_bytes)) as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist() == [MANIFEST, *FILES]
        with np.load(io.BytesIO(zipped.read(GOLDEN)), allow_pickle=False) as golden:
            assert set(golden) == {"windows", "queries", "scores"}
        assert np.load(io.BytesIO(zipped.read(PROTOTYPES)), allow_pickle=False).dtype == np.float32


def test_a_flipped_bit_anywhere_is_refused(bundle_bytes):
    rng = np.random.default_rng(1)
    tail = range(len(bundle_bytes) - 700, len(bundle_bytes))  # all of the central directory
    for at in {*range(200), *tail, *rng.integers(0, len(bundle_bytes), 400).tolist()}:
        damaged = bytearray(bundle_bytes)
        damaged[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(ModelError):
            parse_bundle(bytes(damaged))


def test_what_was_cut_or_appended_is_refused(bundle_bytes):
    for size in range(0, len(bundle_bytes), 97):
        assert refused(bundle_bytes[:size]) is Reason.TRUNCATED
    assert refused(bundle_bytes + b"\0") is Reason.MALFORMED
    assert refused(b"\x80\x04pickle") is Reason.FOREIGN


def test_a_known_digest_must_match(bundle_bytes):
    assert refused(bundle_bytes, "0" * 64) is Reason.HASH_MISMATCH


def repack(bundle_bytes: bytes, *, manifest: dict | None = None, **files: bytes) -> bytes:
    """A bundle whose archive is sound and whose content was tampered with."""
    members = archive.unpack(bundle_bytes)
    if manifest is not None:
        members[MANIFEST] = msgspec.json.encode(msgspec.json.decode(members[MANIFEST]) | manifest)
    return archive.pack(members | {k.replace("__", "."): v for k, v in files.items()})


def test_a_swapped_file_is_refused(bundle_bytes):
    assert refused(repack(bundle_bytes, card__md=b"better")) is Reason.HASH_MISMATCH
    assert refused(repack(bundle_bytes, extra__md=b"more")) is Reason.MALFORMED
    members = archive.unpack(bundle_bytes)
    del members[CARD]
    assert refused(archive.pack(members)) is Reason.MALFORMED


def test_another_format_or_an_unknown_field_is_refused(bundle_bytes):
    assert refused(repack(bundle_bytes, manifest={"schema": SCHEMA + 1})) is Reason.INCOMPATIBLE
    assert refused(repack(bundle_bytes, manifest={"trust_me": True})) is Reason.MALFORMED
    assert refused(repack(bundle_bytes, manifest={"version": "1"})) is Reason.MALFORMED
    assert refused(repack(bundle_bytes, manifest__json=b"[" * 10_000)) is Reason.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../up"},
        {"version": 0},
        {"rows": (0, 1, 2)},
        {"rows": (9,) * 12},
        {"window": 21},
        {"dim": 9},
        {"thresholds": {"nobody": 0.5}},
        {"gestures": ()},
        {"k": 0},
        {"metrics": {"x": float("nan")}},
    ],
)
def test_a_manifest_that_does_not_fit_is_never_written(tmp_path, change):
    manifest, files = parts()
    with pytest.raises(ModelError):
        write_bundle(tmp_path / "x", msgspec.structs.replace(manifest, **change), files)
    assert not list(tmp_path.iterdir())


def test_bad_arrays_are_refused(tmp_path):
    manifest, files = parts()
    good = np.load(io.BytesIO(files[PROTOTYPES]))
    bomb = io.BytesIO()
    np.lib.format.write_array_header_1_0(bomb, {"descr": "<f4", "fortran_order": False, "shape": (12, 1 << 60)})
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}]), allow_pickle=True)
    bad = [pack_array(2 * good), pack_array(good * np.nan), pack_array(good[:, :4]), bomb.getvalue()]
    for data in [*bad, pickled.getvalue(), b"", files[PROTOTYPES] + b"\0", files[PROTOTYPES][:-1]]:
        with pytest.raises(ModelError):
            write_bundle(tmp_path / "x", manifest, files | {PROTOTYPES: data})
    none = np.zeros((0, 20, 4), np.float32)
    empty = Golden(none, np.zeros((0, 2, 8), np.float32), np.zeros((0, 3), np.float32))
    with pytest.raises(ModelError, match="golden"):
        write_bundle(tmp_path / "x", manifest, files | {GOLDEN: pack_golden(empty)})


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ModelError) as caught:
        read_bundle(tmp_path / "nothing.embridge")
    assert caught.value.reason is Reason.NOT_FOUND


def test_other_zip_forms_are_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a", b"0" * 10_000_000)
    with pytest.raises(DataError):
        archive.unpack(out.getvalue())
    for name in ("../a", "/a", "a/b", "", "ä"):
        with pytest.raises(DataError):
            archive.pack({name: b""})
    twice = archive.pack({"a": b"1"})
    entry = twice[: twice.index(b"PK\x01\x02")]
    with pytest.raises(DataError, match="twice"):
        archive.unpack(entry + twice)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(b""), 0, 0, 4, 0)
    with pytest.raises(DataError, match="cannot be a file"):
        archive.unpack(local + b"../x")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True), st.binary(max_size=50), max_size=5))
def test_archives_round_trip(members):
    if members:
        assert list(archive.unpack(archive.pack(members)).items()) == list(members.items())


def test_the_scoring_rule():
    prototypes = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    scorer = PrototypeScorer(prototypes, np.array([1, 0, 0, 1, 0]), k=2)
    queries = np.array([[[1, 0, 0, 0], [0, 0.6, 0.8, 0]]], np.float32)
    # gesture 0: best over queries of prototypes 1, 2, 4 is .6, .8, 1; gesture 1: 1, 0
    assert np.allclose(scorer(queries), [[0.9, 0.5]])
    assert np.allclose(scorer(queries[0]), [0.9, 0.5])
    for rows in ([0, 2, 2, 2, 2], [0, 0], [-1, 0, 0, 0, 0]):
        with pytest.raises(DataError):
            PrototypeScorer(prototypes, np.array(rows), k=1)


def test_the_scores_match_a_plain_loop():
    rng = np.random.default_rng(3)
    rows = rng.permutation(np.arange(30) % G)
    prototypes = rng.normal(size=(30, 8)).astype(np.float32)
    queries = embed(rng.normal(size=(4, M * 8)), rng.random((5, 20, 4)))
    got = PrototypeScorer(prototypes, rows, k=4)(queries)
    for b in range(5):
        for g in range(G):
            similar = sorted(max(float(q @ p) for q in queries[b]) for p in prototypes[rows == g])
            assert got[b, g] == pytest.approx(np.mean(similar[-4:]), abs=1e-5)


def test_manifest_names():
    manifest: Manifest = parts(version=12)[0]
    assert manifest.release == "embridge-12"
    assert ENCODER in FILES
