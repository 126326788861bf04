"""Who may call: tokens, their file, limits by caller, and what the gate asks of routes."""

from __future__ import annotations

import json
import stat

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st

from embridge_cloud.api.gate import check_routes
from embridge_cloud.api.limits import Buckets, Limits
from embridge_cloud.api.roles import Role, access, access_of
from embridge_cloud.api.tokens import Principal, TokenFile
from embridge_shared.errors import ConfigError, OperatorError, Reason

DAY_NS = 86_400 * 10**9


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 10**18

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def test_only_a_digest_is_kept(tmp_path):
    tokens = TokenFile(tmp_path)
    text = tokens.create("ana", Role.OPERATOR, now_ns=5)
    assert tokens.check(text, 6) == Principal("ana", Role.OPERATOR)
    (path,) = [p for p in (tmp_path / "api").iterdir() if p.name == "tokens.json"]
    secret = text.split("_", 2)[2]
    assert secret.encode() not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(secret) == 43


def test_a_term_ends(tmp_path):
    tokens = TokenFile(tmp_path)
    text = tokens.create("ana", Role.VIEWER, now_ns=0, days=2)
    assert tokens.check(text, 2 * DAY_NS - 1) is not None
    assert tokens.check(text, 2 * DAY_NS) is None


def test_what_is_revoked_elsewhere_is_refused_at_once(tmp_path):
    here, elsewhere = TokenFile(tmp_path), TokenFile(tmp_path)
    text = here.create("ana", Role.ADMIN, now_ns=0)
    assert here.check(text, 1) is not None
    elsewhere.revoke("ana")
    assert here.check(text, 1) is None
    with pytest.raises(OperatorError) as caught:
        here.revoke("ana")
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_name_is_given_once_and_is_one(tmp_path):
    tokens = TokenFile(tmp_path)
    tokens.create("ana", Role.VIEWER, now_ns=0)
    with pytest.raises(OperatorError, match="already"):
        tokens.create("ana", Role.VIEWER, now_ns=0)
    for name in ("", "a b", "../x", "x" * 65, "a\nb", "é"):
        with pytest.raises(OperatorError, match="cannot name"):
            tokens.create(name, Role.VIEWER, now_ns=0)


def test_every_other_text_is_refused(tmp_path):
    tokens = TokenFile(tmp_path)
    text = tokens.create("ana", Role.ADMIN, now_ns=0)
    other = tokens.create("ben", Role.VIEWER, now_ns=0)
    _, ident, secret = text.split("_", 2)
    last = "A" if text[-1] != "A" else "B"
    wrong = [text[:-1] + last, text + "A", text[:-1], f"emb_{ident}_", ident, secret, f" {text}", text.upper(), ""]
    wrong.append(f"emb_{ident}_{other.split('_', 2)[2]}")
    assert [tokens.check(t, 1) for t in wrong] == [None] * len(wrong)


@given(st.text(max_size=80))
def test_no_text_breaks_the_check(text):
    assert TokenFile(__import__("pathlib").Path("nowhere")).check(text, 0) is None


def test_a_file_that_others_may_write_lets_nobody_in(tmp_path):
    tokens = TokenFile(tmp_path)
    text = tokens.create("ana", Role.ADMIN, now_ns=0)
    path = tmp_path / "api" / "tokens.json"
    path.chmod(0o620)
    with pytest.raises(ConfigError, match="written by others"):
        TokenFile(tmp_path).check(text, 1)
    path.chmod(0o600)
    path.write_text("[{]")
    with pytest.raises(ConfigError, match="cannot be read"):
        TokenFile(tmp_path).check(text, 1)


def test_a_machine_keeps_its_own_token(tmp_path):
    tokens = TokenFile(tmp_path)
    path = tokens.ensure_local(0)
    text = path.read_text().strip()
    assert tokens.check(text, 1) == Principal("local", Role.ADMIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tokens.ensure_local(0)
    assert path.read_text().strip() == text
    tokens.revoke("local")
    tokens.ensure_local(0)
    assert path.read_text().strip() != text
    with tokens.announced("http://127.0.0.1:9", 0):
        assert (tmp_path / "api" / "local.url").read_text() == "http://127.0.0.1:9\n"
    assert not (tmp_path / "api" / "local.url").exists()


def test_roles_stand_above_each_other():
    order = [Role.METRICS, Role.VIEWER, Role.OPERATOR, Role.ADMIN]
    assert [[a.allows(b) for b in order] for a in order] == [[i >= j for j in range(4)] for i in range(4)]


# limits


def test_a_bucket_fills_with_time():
    clock = Hands()
    buckets = Buckets(2.0, 4.0, clock)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    clock.now_ns += 500_000_000
    assert buckets.take("a") == 0
    assert buckets.take("a") == 0.5
    clock.now_ns += 3600 * 10**9
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    clock.now_ns -= 10**12
    assert buckets.take("a") == 0.5


def test_memory_of_callers_is_bounded():
    buckets = Buckets(1.0, 1.0, Hands(), max_callers=100)
    for number in range(1000):
        buckets.take(str(number))
    assert len(buckets) == 100


def test_wrong_tokens_run_out_long_before_requests():
    clock = Hands()
    limits = Limits(50.0, clock)
    tried = [limits.of_failure("10.0.0.1") for _ in range(100)]
    assert tried[:10] == [0.0] * 10
    assert min(tried[10:]) > 0
    assert limits.of_failure("10.0.0.2") == 0.0
    assert limits.of_address("10.0.0.1") == 0.0
    clock.now_ns += 10 * 10**9
    assert limits.of_failure("10.0.0.1") == 0.0
    assert limits.of_failure("10.0.0.1") > 0.0


# routes


def app_with(method: str, *, declared=None) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    async def endpoint() -> int:
        return 1

    app.add_api_route("/x", declared(endpoint) if declared else endpoint, methods=[method])
    return app


@pytest.mark.parametrize(
    ("method", "declared"),
    [
        ("GET", None),
        ("POST", None),
        ("POST", access(Role.OPERATOR)),
        ("DELETE", access(Role.VIEWER, action="x.delete")),
        ("PUT", access(None, action="x.put")),
    ],
    ids=["reads", "changes", "no action", "a viewer's", "everybody's"],
)
def test_a_route_without_its_role_stops_the_process(method, declared):
    with pytest.raises(ConfigError, match="/x"):
        check_routes(app_with(method, declared=declared).routes)


def test_a_route_in_a_router_cannot_hide():
    app, router = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), APIRouter()
    router.add_api_route("/hidden", lambda: 1)
    app.include_router(router)
    with pytest.raises(ConfigError):
        check_routes(app.routes)


def test_a_declared_route_passes():
    declared = access(Role.OPERATOR, action="x.make")
    check_routes(app_with("POST", declared=declared).routes)
    assert access_of(test_a_declared_route_passes) is None


def test_the_file_is_json_for_people(tmp_path):
    TokenFile(tmp_path).create("ana", Role.VIEWER, now_ns=0)
    (entry,) = json.loads((tmp_path / "api" / "tokens.json").read_text())
    assert set(entry) == {"id", "name", "role", "sha256", "created_ns", "expires_ns"}
