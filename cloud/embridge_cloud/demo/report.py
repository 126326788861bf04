"""The report of a demonstration: figures, a table, pictures, one page."""

from __future__ import annotations

import html
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud import plots
from embridge_cloud.demo.continual_report import continual_section
from embridge_cloud.demo.loop import Outcome
from embridge_cloud.learn.evaluate import Score
from embridge_cloud.learn.export import run_onnx, run_singly
from embridge_cloud.learn.heads import load_head
from embridge_cloud.offline import SessionWindows, evaluation_windows
from embridge_cloud.prototypes import PrototypeIndex
from embridge_cloud.recipe import CONTROL
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.verdict import DecodedSession, ScoredWindows, choose, choose_any, gather, trial_vote, within
from embridge_shared.hand import fit_glove_calibration, glove_to_joints
from embridge_shared.release import ENCODER, ENCODER_INT8, Bundle, read_bundle
from embridge_shared.session import Purpose, Repetition, RepetitionStatus
from embridge_shared.signal import Modality

REPORT = "report.json"
PAGE = "index.html"
LOSSES = "losses.png"
_STRIP_S = 30.0
_STRIP_MOVEMENTS = 3
_PARITY_WINDOWS = 500


def write_report(
    outcome: Outcome, out: Path, began_s: float, *, continual: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Judge what was decoded and write `report.json`, pictures and a page into `out`.

    Args:
        outcome: Of the loop.
        out: Made when missing.
        began_s: When the demonstration began, on the monotonic clock, s.
        continual: What came of the drops that data arrived in, where they did.

    Returns:
        What `report.json` holds.

    Raises:
        DataError: Nothing was decoded, or a session is damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    bundle = read_bundle(outcome.job / outcome.summary.bundle, digest=outcome.summary.digest)
    world = outcome.world
    live = _gathered(outcome, bundle, [_live(s) for s in outcome.decoded])
    rng = np.random.default_rng(0)
    groups = {"seen": world.recipe.seen, "unseen": world.recipe.unseen, "all": live.gestures}
    scores = {name: choose(live, among, rng) for name, among in groups.items()}
    cut = evaluation_windows(outcome.evaluated, bundle.manifest.preprocess)
    controls = _controls(outcome, bundle, cut)
    latency_ms = np.concatenate([d["decode"]["latency_ms"] for d in outcome.digests if d["decode"]])
    report: dict[str, Any] = {
        "embridge": version("embridge"),
        "world": world.name,
        "notes": list(world.notes),
        "chunks": _chunks(outcome),
        "sessions": {"sealed": len(outcome.sessions), "training": len(outcome.summary.sessions)},
        "zero_shot": {
            **{n: _figures(s, trial_vote(live, groups[n])) for n, s in scores.items()},
            "shuffled_pairs": _control_figures(controls, len(world.recipe.unseen)),
            "shuffled_pairs_seen": _control_figures(controls, len(world.recipe.seen)),
        },
        "decode": _latencies(bundle, latency_ms) | {"parity": _parity(outcome, bundle, cut)},
        "release": _release(outcome),
    }
    if continual is not None:
        report["continual"] = continual
    _pictures(outcome, bundle, live, scores, cut, latency_ms, out)
    told_s = sum(outcome.stages.values())
    report["wall_s"] = round(time.monotonic() - began_s, 2)
    report["stages"] = outcome.stages | {"report_and_start_s": round(report["wall_s"] - told_s, 2)}
    (out / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    (out / PAGE).write_text(_page(report, curves=(out / LOSSES).exists()), encoding="utf-8")
    return report


def _latencies(bundle: Bundle, latency_ms: NDArray[np.float64]) -> dict[str, Any]:
    p50, p99 = np.percentile(latency_ms, [50, 99])
    return {
        "decodes": len(latency_ms),
        "latency_ms": {"p50": round(float(p50), 3), "p99": round(float(p99), 3)},
        "hop_ms": 1e3 * bundle.manifest.preprocess.hop_s,
        "window_ms": 1e3 * bundle.manifest.preprocess.window_s,
    }


def _release(outcome: Outcome) -> dict[str, Any]:
    """What the registry published and what the edges run; one digest where they agree."""
    running = sorted({e["digest"] for e in outcome.edges})
    return {
        "name": outcome.summary.release,
        "registry": outcome.registry_digest,
        "edge": ", ".join(running),
        "edges": {e["edge"]: e["release"] for e in outcome.edges},
        "head": outcome.summary.head,
        "head_reason": outcome.summary.head_reason,
        "metrics": outcome.summary.metrics,
    }


def _live(sealed: SealedSession) -> DecodedSession:
    samples = sealed.samples(_scores_of(sealed))
    return DecodedSession(sealed.session.participant.id, samples.t_ns, samples.values, sealed.repetitions())


def _gathered(outcome: Outcome, bundle: Bundle, sessions: list[DecodedSession]) -> ScoredWindows:
    labels = tuple(g.label for g in bundle.manifest.gestures)
    window_s = bundle.manifest.preprocess.window_s
    return gather(sessions, labels, window_s, skip_repetitions=outcome.world.skip_repetitions)


def _controls(outcome: Outcome, bundle: Bundle, cut: list[SessionWindows]) -> list[ScoredWindows]:
    """The same windows as scored by models whose training pairs were broken."""
    found = []
    for number in range(outcome.world.recipe.controls):
        folder = outcome.controls / f"{CONTROL}-{number}"
        embed, scorer = load_head(folder).embed_emg, PrototypeIndex.load(folder).scorer(bundle.manifest.k)
        sessions = [DecodedSession(c.participant, c.t_ns, scorer(embed(c.windows)), c.repetitions) for c in cut]
        found.append(_gathered(outcome, bundle, sessions))
    return found


def _chunks(outcome: Outcome) -> dict[str, Any]:
    """What the edges spooled against what the store holds, and whether any of it is there twice."""
    sent = {(d["session"], s["name"]): s for d in outcome.digests for s in d["streams"]}
    stored = {(str(s.id), e.name): e for s in outcome.sessions for e in s.manifest.streams}
    twice = 0
    for sealed in outcome.sessions:
        for entry in sealed.manifest.streams:
            index = sealed.samples(entry.name).index
            twice += len(index) - len(np.unique(index))
    return {
        "sent": sum(s["chunks"] for s in sent.values()),
        "stored": sum(e.chunks for e in stored.values()),
        "lost": sum(s["chunks"] - (stored[k].chunks if k in stored else 0) for k, s in sent.items()),
        "duplicated": sum(e.chunks for e in stored.values()) - sum(s["chunks"] for s in sent.values()),
        "redelivered": outcome.ingest["duplicates"],
        "samples_sent": sum(s["samples"] for s in sent.values()),
        "samples_stored": sum(e.rows for e in stored.values()),
        "samples_twice": twice,
    }


def _figures(score: Score, trials: float) -> dict[str, Any]:
    return {
        "balanced_accuracy": round(score.balanced_accuracy, 4),
        "chance": round(score.chance, 4),
        "ci95": [round(score.low, 4), round(score.high, 4)],
        "trial_balanced_accuracy": round(trials, 4),
        "windows": score.windows,
        "gestures": list(score.gestures),
        "per_participant": {p: round(a, 4) for p, a in score.per_participant.items()},
    }


def _control_figures(controls: list[ScoredWindows], size: int) -> dict[str, Any]:
    """Over every set of gestures: to a model without pairs, none is more seen than another."""
    each = [round(choose_any(c, size), 4) for c in controls]
    return {"balanced_accuracy": round(float(np.mean(each)), 4), "chance": round(1 / size, 4), "runs": each}


def _parity(outcome: Outcome, bundle: Bundle, cut: list[SessionWindows]) -> dict[str, Any]:
    """Live scores of the edges against the same encoder run here on the same windows."""
    scorer, graph = bundle.scorer(), bundle.files[ENCODER_INT8]
    worst, compared = 0.0, 0
    for sealed, own in zip(outcome.decoded, cut, strict=True):
        live = sealed.samples(_scores_of(sealed))
        there = np.flatnonzero(np.isin(own.number, live.index))[:_PARITY_WINDOWS]
        here = scorer(run_singly(graph, own.windows[there]))
        at = np.searchsorted(live.index, own.number[there])
        worst = max(worst, float(np.abs(here - live.values[at]).max()))
        compared += len(there)
    return {"windows": compared, "max_abs": worst}


def _scores_of(sealed: SealedSession) -> str:
    """Name of the stream of live scores."""
    return next(s.name for s in sealed.session.streams if s.modality is Modality.DECODE)


def _pictures(
    outcome: Outcome,
    bundle: Bundle,
    live: ScoredWindows,
    scores: dict[str, Score],
    cut: list[SessionWindows],
    latency_ms: NDArray[np.float64],
    out: Path,
) -> None:
    titles = {"seen": "EMG in training", "unseen": "EMG never recorded"}
    plots.confusion(
        out / "confusion.png",
        [
            (f"{titles[n]}\n{scores[n].balanced_accuracy:.2f}, chance {scores[n].chance:.2f}", scores[n].gestures,
             np.array(scores[n].confusion))
            for n in titles
        ],
    )  # fmt: skip
    _embedding_map(bundle, cut, out / "embedding.png")
    if outcome.summary.history:
        plots.losses(
            out / LOSSES,
            outcome.summary.history,
            [
                ("masked pre-training", ("emg_mae", "pose_mae")),
                ("alignment", ("align", "nce", "cascle", "mprl")),
                ("targets and queries", ("target_entropy", "query_usage")),
            ],
        )
    plots.latency(out / "latency.png", latency_ms)
    training = next(s for s in outcome.sessions if s.session.purpose is Purpose.TRAINING)
    _strip(training, out / "strip.png")


def _embedding_map(bundle: Bundle, cut: list[SessionWindows], path: Path) -> None:
    """The held-out windows in the plane of the prototypes."""
    labels = [g.label for g in bundle.manifest.gestures]
    window_s = bundle.manifest.preprocess.window_s
    emg, truth = [], []
    for session in cut:
        for r in session.repetitions:
            if r.gesture in labels:
                inside = np.flatnonzero(within(session.t_ns, r, window_s))[::4]
                emg.append(session.windows[inside])
                truth += [labels.index(r.gesture)] * len(inside)
    queries = run_onnx(bundle.files[ENCODER], np.concatenate(emg))
    nearest = (queries @ bundle.prototypes.T).max(axis=2).argmax(axis=1)
    plots.embedding_map(
        path,
        bundle.prototypes,
        np.array(bundle.manifest.rows),
        queries[np.arange(len(queries)), nearest],
        np.array(truth),
        [(g.label, g.emg_seen) for g in bundle.manifest.gestures],
    )


def _strip(sealed: SealedSession, path: Path) -> None:
    """A stretch of raw EMG from the first repetition on, with the hand at the middle of each movement in it."""
    accepted = [r for r in sealed.repetitions() if r.status is RepetitionStatus.ACCEPTED][:_STRIP_MOVEMENTS]
    emg_spec = next(s for s in sealed.session.streams if s.modality is Modality.EMG)
    start_ns = accepted[0].start_ns - round(1e9)
    end_ns = min(accepted[-1].end_ns + round(1e9), start_ns + round(_STRIP_S * 1e9))
    emg = sealed.samples(emg_spec.name, start_ns, end_ns)
    shown = [r for r in accepted if r.end_ns < end_ns]
    plots.strip(
        path,
        np.asarray((emg.t_ns - start_ns) * 1e-9, np.float64),
        emg.values.astype(np.float64) * emg_spec.scale,
        emg_spec.unit,
        _hands(sealed, shown, start_ns),
        [((r.start_ns - start_ns) * 1e-9, (r.end_ns - start_ns) * 1e-9, r.gesture) for r in shown],
    )


def _hands(sealed: SealedSession, shown: list[Repetition], start_ns: int) -> list[tuple[float, NDArray[np.float64]]]:
    spec = next((s for s in sealed.session.streams if s.modality in (Modality.POSE, Modality.GLOVE)), None)
    if spec is None:
        return []
    samples = sealed.samples(spec.name)
    values = samples.values.astype(np.float64) * spec.scale
    if spec.modality is Modality.GLOVE:
        active = np.zeros(len(values), bool)
        for r in sealed.repetitions():
            active |= (samples.t_ns >= r.start_ns) & (samples.t_ns < r.end_ns)
        values = glove_to_joints(values, fit_glove_calibration(values, ~active))
    moments = [shown[0].start_ns - round(5e8), *((r.start_ns + r.end_ns) // 2 for r in shown)]
    rows = [int(np.searchsorted(samples.t_ns, t)) for t in moments]
    return [((t - start_ns) * 1e-9, values[min(row, len(values) - 1)]) for t, row in zip(moments, rows, strict=True)]


def _page(report: dict[str, Any], *, curves: bool) -> str:
    zero, chunks = report["zero_shot"], report["chunks"]
    rows = "".join(
        f"<tr><td>{name}</td><td>{zero[key]['balanced_accuracy']:.3f}</td><td>{zero[key]['chance']:.3f}</td>"
        f"<td>{_interval(zero[key])}</td></tr>"
        for name, key in (
            ("gestures with EMG in training", "seen"),
            ("gestures whose EMG nobody recorded", "unseen"),
            ("all together", "all"),
            ("control: pairs broken", "shuffled_pairs"),
        )
    )
    notes = "".join(f"<li>{html.escape(n)}</li>" for n in report["notes"])
    pictures = "".join(
        f'<figure><img src="{name}.png" alt="{text}"><figcaption>{text}</figcaption></figure>'
        for name, text in (
            ("confusion", "What was performed and what was decoded, live, by wearers the training never met"),
            ("embedding", "Pose prototypes and EMG windows in one space"),
            ("strip", "Raw EMG of one wearer and the hand that made it"),
            ("losses", "Training curves"),
            ("latency", "Decode latency on the edge"),
        )
        if curves or name != "losses"
    )
    drops = continual_section(report["continual"]) if "continual" in report else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>EMBridge report</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2933}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .9rem;border-bottom:1px solid #cbd2d9;text-align:left}}
img{{max-width:100%}}figure{{margin:2rem 0}}figcaption{{color:#52606d}}</style>
<h1>EMBridge: the loop, {html.escape(report["world"])}</h1>
<p>{chunks["sent"]} chunks sent, {chunks["stored"]} stored, {chunks["lost"]} lost, {chunks["duplicated"]} stored twice.
Release <code>{report["release"]["name"]}</code> (<code>{report["release"]["registry"][:12]}</code>) ran on
{len(report["release"]["edges"])} edges; a decode took {report["decode"]["latency_ms"]["p50"]} ms at the median,
{report["decode"]["latency_ms"]["p99"]} ms at the 99th percentile. Wall time {report["wall_s"]:.0f} s.</p>
<p>It speaks with the head <b>{report["release"]["head"]}</b>. {html.escape(report["release"]["head_reason"])}</p>
<table><tr><th>decoded live by held-out wearers</th><th>balanced accuracy</th><th>chance</th>
<th>95 % interval over wearers</th></tr>{rows}</table><ul>{notes}</ul>{drops}{pictures}</html>
"""


def _interval(figures: dict[str, Any]) -> str:
    return f"{figures['ci95'][0]:.3f} – {figures['ci95'][1]:.3f}" if "ci95" in figures else "–"
