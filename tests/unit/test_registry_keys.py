"""Who may sign: thresholds, root keys on other machines, rotation of every role, crashes in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata
from typer.testing import CliRunner

from embridge_cloud.registry import ONLINE, Ceremony, Registry, repository, sign_draft
from embridge_cloud.registry.keys import read_private, read_public
from embridge_cloud.release_key_cli import app
from embridge_shared.archive import write_atomically
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ModelError, OperatorError, Reason
from support.bundles import make_bundle

SECRET = b"correct horse battery staple"


class Later(SystemClock):
    """A clock that is ahead."""

    def __init__(self, days: float) -> None:
        self._ahead_ns = int(days * 86_400e9)

    def wall_ns(self) -> int:
        return super().wall_ns() + self._ahead_ns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Registry(tmp_path / "registry", SystemClock()).publish(make_bundle(tmp_path))
    return tmp_path / "registry"


@pytest.fixture
def desk(folder: Path) -> Ceremony:
    return Ceremony(folder, SystemClock())


def keyids(desk: Ceremony, role: str) -> set[str]:
    return set(desk.root().roles[role].keyids)


def test_root_keys_sign_on_other_machines(folder, desk, tmp_path):
    away = desk.move_roots(tmp_path / "usb", SECRET)
    assert len(away) == 3
    assert not list(folder.glob("keys/root*"))
    assert all(b"ENCRYPTED" in key.read_bytes() and key.stat().st_mode & 0o077 == 0 for key in away)
    with pytest.raises(OperatorError, match="protected by a passphrase"):
        read_private(away[0])
    with pytest.raises(OperatorError, match="does not open"):
        read_private(away[0], b"wrong")
    Registry(folder, SystemClock()).publish(make_bundle(tmp_path, version=2))
    before = keyids(desk, "targets")
    draft = desk.rotate("targets")
    assert (draft.missing, draft.done, len(draft.unsigned)) == (2, False, 3)
    copy = tmp_path / "copy.json"
    shutil.copy(desk.draft_file, copy)
    sign_draft(copy, [read_private(away[0], SECRET)])
    assert desk.apply(copy.read_bytes()).missing == 1
    assert keyids(desk, "targets") == before, "one signature of two changes nothing"
    shutil.copy(desk.draft_file, copy)
    sign_draft(copy, [read_private(away[2], SECRET)])
    assert desk.apply(copy.read_bytes()).done
    assert not keyids(desk, "targets") & before
    assert desk.draft() is None
    assert Registry(folder, SystemClock()).publish(make_bundle(tmp_path, version=3)).version == 3


@pytest.mark.parametrize("role", ONLINE)
def test_every_online_key_can_be_replaced(folder, desk, tmp_path, role):
    running = Registry(folder, SystemClock())
    before = keyids(desk, role)
    assert desk.rotate(role).done
    assert not keyids(desk, role) & before
    assert not list(folder.glob("keys/*.next.pem"))
    running.publish(make_bundle(tmp_path, version=2))
    assert [p.version for p in Registry(folder, SystemClock()).releases()] == [1, 2], "a process that ran goes on"


@pytest.mark.parametrize("writes", range(6))
def test_a_crash_in_a_rotation_leaves_a_repository_that_verifies(folder, desk, monkeypatch, writes):
    left = writes

    def dying(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        write_atomically(path, data, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(repository, "write_atomically", dying)
        try:
            desk.rotate("snapshot")
        except KeyboardInterrupt:
            assert writes < 5
    again = Ceremony(folder, SystemClock())
    assert len(Registry(folder, SystemClock()).releases()) == 1
    if writes < 5:
        assert again.rotate("snapshot").done or again.root().version == 2
    assert len(Registry(folder, SystemClock()).releases()) == 1


def test_root_keys_come_and_go(folder, desk, tmp_path):
    first, second, third = sorted(keyids(desk, "root"))
    other = tmp_path / "other"
    assert CliRunner().invoke(app, ["make", str(other / "k.pem"), "--unprotected"]).exit_code != 0, "no such folder"
    other.mkdir()
    assert CliRunner().invoke(app, ["make", str(other / "k.pem"), "--unprotected"]).exit_code == 0
    new = read_public(other / "k.pub")
    assert desk.add_root(new, instead_of=first[:8]).done
    assert keyids(desk, "root") == {second, third, new.keyid}
    with pytest.raises(OperatorError, match="already"):
        desk.add_root(new)
    for wrong in (first, "", second[:3]):
        with pytest.raises(OperatorError, match="names"):
            desk.retire_root(wrong)
    assert desk.retire_root(new.keyid).done
    with pytest.raises(OperatorError, match="cannot give 2"):
        desk.retire_root(second)
    for count in (0, 3):
        with pytest.raises(OperatorError):
            desk.threshold(count)
    assert desk.threshold(1).done
    assert desk.retire_root(second).done
    with pytest.raises(OperatorError):
        desk.rotate("root")
    assert desk.root().version == 5


def test_what_is_applied_must_be_the_draft(folder, desk, tmp_path):
    away = desk.move_roots(tmp_path / "usb", None)
    with pytest.raises(OperatorError):
        desk.apply(b"{}")
    desk.renew()
    copy = tmp_path / "copy.json"
    shutil.copy(desk.draft_file, copy)
    stranger = tmp_path / "stranger.pem"
    CliRunner().invoke(app, ["make", str(stranger), "--unprotected"])
    sign_draft(copy, [read_private(stranger)])
    assert desk.apply(copy.read_bytes()).missing == 2, "a stranger's signature does not count"
    forged = Metadata.from_bytes(copy.read_bytes())
    forged.signed.roles["root"].threshold = 1
    forged.sign(read_private(away[0]))
    with pytest.raises(OperatorError, match="not a copy"):
        desk.apply(forged.to_bytes())
    timestamp = (folder / "repository/metadata/timestamp.json").read_bytes()
    with pytest.raises(OperatorError, match="metadata of timestamp"):
        desk.apply(timestamp)
    assert desk.discard()
    assert not desk.discard()
    assert desk.root().version == 1


def test_a_root_is_renewed_while_its_keys_are_here_and_asked_for_when_not(folder, desk, tmp_path, caplog):
    desk.renew()
    Registry(folder, Later(400)).refresh_timestamp()
    assert desk.root().version == 3
    desk.move_roots(tmp_path / "usb", None, keep=1)
    Registry(folder, Later(800)).refresh_timestamp()
    assert desk.root().version == 3
    assert "its keys are elsewhere" in caplog.text


def test_a_registry_of_one_root_key_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(repository, "ROOT_KEYS", 1)
        Registry(tmp_path / "registry", SystemClock())
    keys = tmp_path / "registry" / "keys"
    (keys / "root-1.pem").rename(keys / "root.pem")
    registry = Registry(tmp_path / "registry", Later(400))
    registry.refresh_timestamp()
    assert Metadata.from_bytes(registry.root_bytes()).signed.version == 2


def test_a_used_repository_is_not_made_anew(folder, tmp_path):
    (folder / "repository/metadata/timestamp.json").unlink()
    with pytest.raises(ModelError) as caught:
        Registry(folder, SystemClock())
    assert caught.value.reason is Reason.NOT_FOUND
    with pytest.raises(OperatorError):
        Ceremony(tmp_path / "nowhere", SystemClock())


def test_the_commands(folder, tmp_path, monkeypatch):
    run = CliRunner(env={"EMBRIDGE_KEY_PASSPHRASE": SECRET.decode()})

    def ok(*words: str) -> str:
        result = run.invoke(app, [*words])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    at = ("--registry", str(folder))
    assert ok("list", *at).count("keys/root-") == 3
    keys = [line for line in ok("move-root", str(tmp_path / "usb"), *at).splitlines() if line.endswith(".pem")]
    assert "elsewhere" in ok("list", *at)
    assert "BEGIN PUBLIC KEY" in ok("export-public", keys[0])
    assert "lacks 2 signatures" in ok("rotate", "timestamp", *at)
    copy = tmp_path / "copy.json"
    shutil.copy(folder / "next.root.json", copy)
    for key in keys[:2]:
        assert "signed by" in ok("sign-root", str(copy), "--key", key)
    assert "Root 2 is in force" in ok("apply", str(copy), *at)
    assert "lacks" in ok("renew", *at)
    body = json.loads(ok("list", "--json", *at))
    assert (body["version"], body["draft"]["missing"], len(body["keys"])) == (2, 2, 6)
    assert "gone" in ok("discard", *at)
    assert "lacks" in ok("threshold", "3", *at)
    assert isinstance(run.invoke(app, ["apply", str(tmp_path / "none"), *at]).exception, OperatorError)
