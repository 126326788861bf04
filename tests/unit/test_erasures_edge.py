from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from typer.testing import CliRunner

from embridge_cloud.registry import Ceremony, Registry
from embridge_edge import cli
from embridge_edge.courier import Courier
from embridge_edge.erasures import DIGESTS, Erasures, verify
from embridge_edge.spool import EVENTS, Item, Spool
from embridge_shared.clock import SystemClock
from embridge_shared.erasure import ErasureOrder, SignedOrder, fingerprint
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.session import Participant
from embridge_shared.settings import EdgeSettings
from embridge_shared.wire.messages import CommitReport, StreamCommit
from support.sessions import T0, emg_spec, record, session_of

NAME = "subject-4711-x"


def fill(spool: Spool, state_dir: Path):
    """A session of the one who leaves, partly delivered and refused, and one of another."""
    recordings = []
    for number, name in ((1, NAME), (2, "other")):
        session = session_of(emg_spec(), number=number)
        session = msgspec.structs.replace(session, participant=Participant(id=name))
        recording = record(session, number)
        (topic, opening), *rest = recording.messages()
        spool.begin(
            session.id,
            f"take-{number}",
            msgspec.msgpack.encode(session),
            Item(session.id, EVENTS, 0, 1, topic, opening),
        )
        chunks = [m for m in rest if "/up/" in m[0]]
        spool.put(
            [Item(session.id, 0, c.first, c.n, t, p) for c, (t, p) in zip(recording.chunks[0], chunks, strict=True)]
        )
        until = recording.chunks[0][3].first
        spool.settle(CommitReport(session=session.id, streams=(StreamCommit(stream=0, until=until),)))
        for folder in ("calibrations", DIGESTS):
            (state_dir / folder).mkdir(exist_ok=True)
            (state_dir / folder / f"{number}.json").write_text(msgspec.json.encode({"participant": name}).decode())
        recordings.append((recording, [p for _, p in chunks]))
    return recordings


def traces(state_dir: Path, recording, payloads) -> set[str]:
    marks = [NAME.encode(), NAME.encode("utf-16-le"), recording.session.id.bytes, str(recording.session.id).encode()]
    marks += [p[64:] for p in payloads]
    return {p.name for p in state_dir.rglob("*") if p.is_file() and any(m in p.read_bytes() for m in marks)}


def order(registry: Registry, *, edge: str = "edge-1", number: int = 7, name: str = NAME) -> SignedOrder:
    salt = b"s" * 16
    found = ErasureOrder(id=UUID(int=number), edge=edge, salt=salt, fingerprint=fingerprint(name, salt), issued_ns=T0)
    return registry.signed(found.body())


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry", SystemClock())


@pytest.fixture
def settings(tmp_path, registry):
    root = tmp_path / "root.json"
    root.write_bytes(registry.root_bytes())
    return EdgeSettings(name="edge-1", state_dir=tmp_path / "edge", update_root=root)


async def settled(done, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def obeyed(settings, signed, *, seconds: float = 5.0) -> Erasures:
    courier = Courier(Spool(settings.state_dir / "spool.db", 1 << 30))
    try:
        erasures = Erasures(settings, courier, SystemClock(), changed=lambda: None)
        task = asyncio.create_task(erasures.run())
        erasures.take(signed)
        await settled(lambda: not erasures._waiting, seconds)
        task.cancel()
        return erasures
    finally:
        await courier.close()


async def test_an_order_leaves_no_byte_and_is_obeyed_once(tmp_path, settings, registry):
    spool = Spool(settings.state_dir / "spool.db", 1 << 30)
    (gone, payloads), (kept, _) = fill(spool, settings.state_dir)
    before = spool.backlog()
    spool.close()
    assert traces(settings.state_dir, gone, payloads) == {"spool.db", "1.json"}
    assert (await obeyed(settings, order(registry))).done == (UUID(int=7),)
    assert traces(settings.state_dir, gone, payloads) == set()
    spool = Spool(settings.state_dir / "spool.db", 1 << 30)
    assert [s.session for s in spool.sessions()] == [kept.session.id]
    assert 0 < spool.backlog().items < before.items
    fill_again = msgspec.structs.replace(session_of(emg_spec(), number=9), participant=Participant(id=NAME))
    spool.begin(
        fill_again.id, "again", msgspec.msgpack.encode(fill_again), Item(fill_again.id, EVENTS, 0, 1, "t", b"x")
    )
    spool.close()
    assert (await obeyed(settings, order(registry))).done == (UUID(int=7),)
    spool = Spool(settings.state_dir / "spool.db", 1 << 30)
    assert len(spool.sessions()) == 2  # an order that is played again does not touch who came back
    spool.close()


async def test_orders_that_nobody_trusted_signed_are_refused(tmp_path, settings, registry):
    spool = Spool(settings.state_dir / "spool.db", 1 << 30)
    fill(spool, settings.state_dir)
    spool.close()
    good = order(registry)
    forged = order(Registry(tmp_path / "other", SystemClock()))
    (keyid,) = good.signatures
    changed = SignedOrder(body=good.body[:-1] + bytes([good.body[-1] ^ 1]), signatures=good.signatures)
    borrowed = SignedOrder(body=good.body, signatures={keyid: next(iter(forged.signatures.values()))})
    for bad in (forged, changed, borrowed, SignedOrder(body=good.body, signatures={})):
        with pytest.raises(ModelError) as caught:
            verify(bad, registry.root_bytes(), settings.state_dir)
        assert caught.value.reason is Reason.SIGNATURE
        assert (await obeyed(settings, bad)).done == ()
    elsewhere = order(registry, edge="edge-2")
    assert (await obeyed(settings, elsewhere)).done == ()
    metadata = (registry.repository / "metadata" / "1.targets.json").read_bytes()
    with pytest.raises(DataError):
        SignedOrder(body=metadata, signatures={}).order()
    with pytest.raises(DataError):
        SignedOrder.unpack(b"\x93\x01")
    spool = Spool(settings.state_dir / "spool.db", 1 << 30)
    assert len(spool.sessions()) == 2
    spool.close()


async def test_an_edge_that_was_away_follows_to_the_keys_of_today(tmp_path, settings, registry):
    provisioned = registry.root_bytes()
    old = order(registry)
    desk = Ceremony(tmp_path / "registry", SystemClock())
    assert all(desk.rotate("targets").done for _ in range(3))
    new = order(registry)
    assert verify(new, provisioned, settings.state_dir).edge == "edge-1"
    stranger = Registry(tmp_path / "other", SystemClock())
    Ceremony(tmp_path / "other", SystemClock()).rotate("targets")
    for bad in (
        SignedOrder(body=old.body, signatures=old.signatures, roots=new.roots),
        SignedOrder(body=new.body, signatures=new.signatures, roots=new.roots[:2]),
        SignedOrder(body=new.body, signatures=new.signatures, roots=(new.roots[2], new.roots[0])),
        SignedOrder(body=new.body, signatures=new.signatures, roots=(b"[]",)),
        order(stranger),
    ):
        with pytest.raises(ModelError) as caught:
            verify(bad, provisioned, settings.state_dir)
        assert caught.value.reason is Reason.SIGNATURE


async def test_an_order_waits_for_the_session_under_way(settings, registry):
    courier = Courier(Spool(settings.state_dir / "spool.db", 1 << 30))
    erasures = Erasures(settings, courier, SystemClock(), changed=lambda: None)
    task = asyncio.create_task(erasures.run())
    async with erasures.held():
        erasures.take(order(registry))
        await asyncio.sleep(0.05)
        assert erasures.done == ()
    await settled(lambda: bool(erasures.done))
    task.cancel()
    await courier.close()


def test_forget_by_hand(settings, monkeypatch):
    spool = Spool(settings.state_dir / "spool.db", 1 << 30)
    (gone, payloads), _ = fill(spool, settings.state_dir)
    spool.close()
    result = CliRunner().invoke(cli.app, ["forget", NAME, "--state-dir", str(settings.state_dir), "--yes"])
    assert result.exit_code == 0, result.exception
    assert "3 sessions and files" in result.stdout
    assert traces(settings.state_dir, gone, payloads) == set()
