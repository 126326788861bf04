"""What rooms of the terminal interface show in tests: sessions, rollouts with their edges, releases and jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from embridge_shared.fleet import EdgeProgress, Rollout, RolloutPolicy, RolloutState, UpdatePhase, Wave, WaveTally
from embridge_tui.model import Job, Release, Session
from support.tui_world import EMPTY, Clock, ScriptedCloud


def uuid(i: int) -> UUID:
    return UUID(int=(i << 96) + i)


def session(i: int, **changes) -> Session:
    given = {
        "session": uuid(i), "edge": "edge-1", "participant": f"p{i:02d}", "purpose": "training",
        "protocol": "shapes-4/1", "state": "sealed", "started_at": datetime(2026, 11, 22, 9, i),
        "ended_at": datetime(2026, 11, 22, 9, i + 18, 22), "end_reason": "complete", "samples": 132_091,
        "missing": 5000, "cues": 3, "accepted": 2, "rejected": 1, "bytes": 214_000_000,
    }  # fmt: skip
    return Session(**(given | changes))


def detail(of: Session) -> dict:
    head = {k: v for k, v in msgspec.to_builtins(of).items() if k not in {"cues", "accepted", "rejected"}}
    stream = {
        "name": "emg", "channels": 16, "rate_hz": 2000.0, "device": "band-07", "samples": 124_344, "missing": 5000,
        "awaited": [(1000, 1600), (9000, 9400)],
    }  # fmt: skip
    made = [("fist", "accepted", ""), ("fist", "rejected", "too_short"), ("open", "accepted", "")]
    return head | {
        "streams": [stream],
        "cues": [{"gesture": g} for g, _, _ in made],
        "repetitions": [
            {"gesture": g, "status": s, "reason": r, "start_ns": i * 4_000_000_000, "end_ns": i * 4_000_000_000 + 10**9}
            for i, (g, s, r) in enumerate(made)
        ],
    }


def judged(bad: int = 5) -> list[dict]:
    return [
        {"stream": "emg", "channel": f"ch{i}", "windows": 50, "warn": 0, "bad": bad if i else 0,
         "grade": "bad" if i and bad else "good", "reasons": "flat" if i else ""}
        for i in range(2)
    ]  # fmt: skip


NOW = Clock.wall
POLICY = RolloutPolicy(
    waves=(Wave(name="canary", share=0.5, soak_s=7200.0), Wave(name="all", share=1.0, soak_s=7200.0, approve=True))
)


def shadow(name: str, *, phase: UpdatePhase = UpdatePhase.IDLE, detail: str = "", **changes: Any) -> dict:
    reported = {
        "online": changes.pop("online", True), "release": changes.pop("runs", "embridge-1"), "spooled": 0,
        "update": {"phase": phase.value, "detail": detail, "attempts": 1}, "health": None,
    }  # fmt: skip
    given = {"edge": name, "release": "embridge-2", "rollout": "r-0088", "reported": reported, "heard_ns": NOW - 10**10}
    return given | changes


def rollout(state: RolloutState = RolloutState.SOAKING, **changes: Any) -> Rollout:
    given = {
        "id": "r-0088", "release": "embridge-2", "digest": "9f" * 32, "policy": POLICY, "state": state,
        "started_ns": NOW - 10**13, "since_ns": NOW - 2460 * 10**9, "started_by": "ana",
        "tally": (
            WaveTally(name="canary", edges=2, asked=2, committed=1, errors=1),
            WaveTally(name="all", edges=1),
        ),
    }  # fmt: skip
    return Rollout(**(given | changes))


EDGES = (
    EdgeProgress(edge="band-20", wave=0, asked_ns=1, phase=UpdatePhase.COMMITTED, heard_ns=NOW),
    EdgeProgress(edge="band-31", wave=0, asked_ns=1, phase=UpdatePhase.FAILED, error="checksum", retries=1),
)


def fleet_cloud(*rollouts: Rollout) -> ScriptedCloud:
    release = Release(name="embridge-2", version=2, digest="9f" * 32, size=3_100_000, min_agent="0.1")
    cloud = ScriptedCloud(msgspec.structs.replace(EMPTY, releases=(release,), rollouts=rollouts))
    cloud.answers["/api/fleet"] = [
        shadow("band-20", runs="embridge-2", phase=UpdatePhase.COMMITTED),
        shadow("band-21", phase=UpdatePhase.DOWNLOADING),
        shadow("band-22", phase=UpdatePhase.WAITING, detail="a session records", recording="0" * 32),
        shadow("band-31", phase=UpdatePhase.FAILED, detail="checksum"),
        shadow("band-40", online=False, pinned="embridge-1", pinned_why="demo day (ana)"),
    ]
    cloud.answers["/api/rollout-policy"] = msgspec.to_builtins(POLICY)
    for one in rollouts:
        whole = msgspec.structs.replace(one, edges=EDGES)
        cloud.answers[f"/api/rollouts/{one.id}"] = msgspec.to_builtins(whole)
    return cloud


DIGEST = "9f3c" * 16


def check(name: str, *, passed: bool, required: bool = True) -> dict:
    return {"name": name, "title": name, "candidate": 0.5, "passed": passed, "required": required, "why": f"{name} 0.5"}


GATE = {
    "candidate": "embridge-2", "champion": "embridge-1", "accepted": True, "reason": "nothing is worse", "seed": 0,
    "checks": [check("unseen", passed=True), check("size", passed=False, required=False)], "participants": 3,
    "forced_by": "", "forced_why": "",
}  # fmt: skip


def release(version: int, **changes) -> Release:
    given = {"name": f"embridge-{version}", "version": version, "digest": DIGEST, "size": 3_100_000, "min_agent": "0.1"}
    return Release(**(given | changes))


def told(of: Release, gate=None) -> dict:
    manifest = {
        "created_ns": 1_795_000_000_000_000_000, "head": "cpep", "gestures": [{}, {}],
        "lineage": {"sessions": ["s1", "s2"], "participants": ["c1"], "snapshot": "77ab" * 16},
    }  # fmt: skip
    row = {
        "release": of.name, "digest": of.digest, "created_ns": manifest["created_ns"], "code": "1", "head": "cpep",
        "seed": 0, "job": "", "snapshot": "77ab", "recipe": "r", "participants": ["p01"], "forgotten": 0,
        "sessions": [],
    }  # fmt: skip
    return {
        "published": {"name": of.name, "digest": of.digest}, "manifest": manifest, "gate": gate,
        "recalled": of.recalled, "lineage": [row],
    }  # fmt: skip


RUNNING = Job(
    id="realign-4", state="running", stage="align", step=30, total=120, loss=0.5, eta_s=90.0, champion="embridge-2",
    sessions=12, new_sessions=4, left_out={"e3b0c442": "labels look swapped"}, by="ana", why="lab-2",
)  # fmt: skip
REFUSED = Job(id="realign-3", state="refused", error="unseen accuracy fell by 3 points", accepted=False)
