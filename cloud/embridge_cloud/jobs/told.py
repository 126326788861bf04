"""Jobs in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from embridge_shared.durations import spoken


def line_of(job: dict[str, Any]) -> str:
    """A job in a line."""
    made = f"{job['line']}-{job['version']}" if job["version"] else job["line"]
    text = f"{job['id']:<12} {job['state']:<10} {made:<16}"
    if job["state"] == "running":
        done = f" {job['step']}/{job['total']}" if job["total"] else ""
        loss = f"  loss {job['loss']:.3f}" if job["loss"] else ""
        left = f"  {spoken(job['eta_s'])} left of this stage" if job["eta_s"] else ""
        return f"{text} {job['stage']}{done}{loss}{left}"
    if job["release"]:
        forced = f", against the gates, by {job['forced_by']}" if job["forced_by"] else ""
        return f"{text} published as {job['release']}{forced}"
    return f"{text} {job['error'] or job['why']}".rstrip()


def one(job: dict[str, Any], gate: dict[str, Any] | None) -> str:
    """A job on a page, with what the gates said of its candidate."""
    rows = [
        ("job", f"{job['id']}, {job['state']}"),
        ("asked by", f"{job['by'] or 'nobody known'}: {job['why']}"),
        ("candidate", _candidate(job)),
        ("data", _data(job)),
        ("began", _times(job)),
        ("doing", line_of(job).partition("running")[2].strip() if job["state"] == "running" else ""),
        ("said", job["error"]),
        ("release", job["release"]),
    ]
    lines = [f"{name:<10} {text}" for name, text in rows if text]
    lines += [f"{'left out':<10} {session}: {why}" for session, why in sorted(job["left_out"].items())]
    if gate is not None:
        verdict = "accepted" if gate["accepted"] else "refused"
        if gate["forced_by"]:
            verdict += f"; overruled by {gate['forced_by']}: {gate['forced_why']}"
        lines += ["", f"gates: {verdict}", *(_check(c) for c in gate["checks"])]
    return "\n".join(lines)


def _candidate(job: dict[str, Any]) -> str:
    if not job["version"]:
        return ""
    begun = "goes on from its weights" if job["warm"] else "begun anew"
    held = f", held against {job['champion']}" if job["champion"] else ", the first of its line"
    return f"{job['line']}-{job['version']}{held}; {begun}, pose space of generation {job['generation']}"


def _data(job: dict[str, Any]) -> str:
    if not job["snapshot"]:
        return ""
    return f"{job['sessions']} sessions, {job['new_sessions']} of them new, snapshot {job['snapshot'][:12]}"


def _times(job: dict[str, Any]) -> str:
    if not job["started_ns"]:
        return ""
    began = datetime.fromtimestamp(job["started_ns"] * 1e-9, UTC)
    text = f"{began:%Y-%m-%dT%H:%M:%SZ}"
    if job["ended_ns"]:
        text += f", took {spoken((job['ended_ns'] - job['started_ns']) * 1e-9)}"
    return text + (f", attempt {job['attempts']}" if job["attempts"] > 1 else "")


def _check(check: dict[str, Any]) -> str:
    sign = "ok" if check["passed"] else "NO" if check["required"] else "--"
    return f"  {sign}  {check['name']:<24} {check['why']}"
