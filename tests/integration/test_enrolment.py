"""A gesture nobody performed: decoded from its pose, enrolled in three repetitions, taken back, kept by an update."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from embridge_edge import calibrate_cli, enrol_cli, recordings
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.enrol.capture import Capture
from embridge_edge.enrol.choice import Serves, load
from embridge_edge.enrol.desk import Desk, baseline_of, calibration_gestures, release_of
from embridge_edge.enrol.events import Answered, Judged, Weighed
from embridge_edge.enrol.guide import Pace
from embridge_edge.enrol.serving import serving
from embridge_edge.enrol.trial import TrialRound, mixed_round
from embridge_edge.enrol.view import Release, WearerView
from embridge_edge.spool import Spool
from embridge_shared.clock import SystemClock
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.gestures import find
from embridge_shared.preprocess import FrontEndConfig
from embridge_shared.release import Bundle
from embridge_shared.session import CueShown, Purpose, Repetition, Session
from embridge_shared.wire.messages import EventMessage, unpack
from support.enrol_world import PREPROCESS, SEEN, UNSEEN, accuracy, band, play, prior, release, simulated, spec

WEARER = 22
QUICK = Pace(relax_s=1.5)
NEW = UNSEEN[0]


def desk(folder: Path, bundle: Bundle | Release, participant: str = "w1") -> Desk:
    made = bundle if isinstance(bundle, Release) else release_of(bundle)
    return Desk(folder, participant, made, edge="edge-1", clock=SystemClock())


@cache
def shown(wearer: int) -> Capture:
    """A calibration as it was performed."""
    view = WearerView(Release("embridge-1", "d", PREPROCESS, prior()), spec(), None)
    script = [*SEEN[:4]] * 2
    return play(band(wearer, 0), lambda o: Capture(view, script, o, pace=QUICK), session=UUID(int=1)).capture


def calibrated(folder: Path, bundle: Bundle, *, wearer: int = WEARER) -> Desk:
    found = desk(folder, bundle)
    found.calibrate(shown(wearer))
    return found


def enrolled(at: Desk, label: str = NEW, *, wearer: int = WEARER, repetitions: int = 3, **more) -> tuple[Weighed, ...]:
    view = at.view(spec())
    played = play(
        band(wearer, 1, **more), lambda o: Capture(view, [label] * repetitions, o, pace=QUICK), session=UUID(int=2)
    )
    assert all(e.refusal is None for e in played.of(Judged))
    return at.enrol(played.capture)[1]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return release(tmp_path_factory.mktemp("release"))


def test_pose_then_repetitions_then_undo_then_an_update(tmp_path: Path, bundle: Bundle) -> None:
    wearer = 21
    at = calibrated(tmp_path, bundle, wearer=wearer)
    pose_alone = accuracy(at.view(spec()), wearer, UNSEEN)
    others = accuracy(at.view(spec()), wearer, SEEN)
    (weight,) = enrolled(at, wearer=wearer)
    assert (weight.gesture, weight.repetitions) == (NEW, 3)
    assert 0 < weight.own < 1
    own = accuracy(at.view(spec()), wearer, (NEW,))
    assert accuracy(at.view(spec()), wearer, UNSEEN) > pose_alone + 0.2
    assert own > 0.95
    assert accuracy(at.view(spec()), wearer, SEEN) > others - 0.05
    before = at.view(spec())
    at.store.undo()
    assert accuracy(at.view(spec()), wearer, UNSEEN) == pose_alone
    at.store.redo()
    assert accuracy(at.view(spec()), wearer, (NEW,)) == own
    # an update: another prior, other filters, no calibration of its own
    other = release(tmp_path, 2, prior(4))
    manifest = msgspec.structs.replace(
        other.manifest.preprocess, front_end=FrontEndConfig(mode="envelope", rate_hz=100.0, highpass_hz=25.0)
    )
    updated = desk(tmp_path, replace(release_of(other), preprocess=manifest))
    view = updated.view(spec())
    assert len(view.own) == len(before.own)
    # the same rest and strong contraction are found in what was stored
    assert view.scale is not None
    assert before.scale is not None
    np.testing.assert_allclose(view.scale.gain, before.scale.gain, rtol=0.15)
    assert accuracy(view, wearer, (NEW,)) > 0.9


def test_the_edge_decodes_a_new_gesture_that_no_release_knows(tmp_path: Path, bundle: Bundle) -> None:
    at = calibrated(tmp_path, bundle)
    shape = find(["pinky_up"])[0]
    enrolled(at, "my_own", shapes={"my_own": shape})
    at.store.commit([], define=[GestureNote(label="my_own")])
    decoder = Decoder(bundle, int8=False)
    found = serving(tmp_path, "w1", decoder, spec(), edge="edge-1", clock=SystemClock())
    assert found.source is not None
    assert "my_own" in found.source.labels
    assert "my_own" not in decoder.labels
    stream = StreamDecoder(decoder, spec(), found.scale, source=found.source)
    view, taken = at.view(spec()), []
    played = play(band(WEARER, 7, shapes={"my_own": shape}), lambda o: Capture(view, ["my_own"], o, pace=QUICK))
    (taken,) = played.capture.taken
    about = taken.repetition.about
    results = stream.push(taken.repetition.samples, about.first)
    said = [
        found.source.labels[int(r.evidence.log_likelihood.argmax())]
        for r in results
        if about.onset / 20 + 80 < r.end <= about.end / 20
    ]
    assert len(said) > 3
    assert said.count("my_own") / len(said) > 0.9
    assert all(r.evidence.distance is not None for r in results)
    assert results[-1].evidence.log_likelihood.shape == (len(found.source.labels),)


def test_an_update_that_is_worse_for_a_wearer_does_not_serve_them(tmp_path: Path, bundle: Bundle) -> None:
    at = calibrated(tmp_path, bundle)
    for label in UNSEEN:
        enrolled(at, label)
    first = at.served(spec())
    assert first.choice.serves is Serves.WEARER
    assert first.choice.accuracy is not None
    assert at.served(spec()).choice == first.choice
    good = prior()
    rng = np.random.default_rng(0)
    # a prior that puts every gesture elsewhere and is sure of it
    spoilt = replace(
        good,
        means=good.means[rng.permutation(len(good.means))] * 3,
        encode=-good.encode,
        people=good.people * 1e-3,
        unseen=good.unseen * 1e-3,
    )
    worse = desk(tmp_path, release(tmp_path, 2, spoilt))
    found = worse.served(spec())
    assert found.choice.serves is Serves.KEPT
    assert found.choice.prior_of == bundle.manifest.release
    assert found.choice.accuracy == first.choice.accuracy
    assert found.choice.rivals["wearer"] < found.choice.rivals["kept"]
    assert "embridge-1" in found.choice.said
    assert found.view is not None
    assert accuracy(found.view, WEARER, UNSEEN) > 0.9
    again = worse.served(spec())
    assert again.choice == found.choice
    assert accuracy(again.view, WEARER, UNSEEN) > 0.9
    better = desk(tmp_path, release(tmp_path, 3, prior(6))).served(spec())
    assert better.choice.serves in (Serves.WEARER, Serves.KEPT)
    assert better.choice.accuracy >= found.choice.accuracy
    # features made in another way cannot be kept, and that is said
    changed = replace(
        release_of(release(tmp_path, 4, spoilt)),
        preprocess=msgspec.structs.replace(PREPROCESS, front_end=FrontEndConfig(rate_hz=100.0, highpass_hz=30.0)),
    )
    told = desk(tmp_path, changed).served(spec()).choice
    assert told.serves is Serves.WEARER
    assert "not made any more" in told.said
    assert load(worse.store) == told


def test_the_releases_own_scores_serve_where_they_are_better(tmp_path: Path, bundle: Bundle) -> None:
    at = calibrated(tmp_path, bundle)
    labels = iter([])

    def knows(windows):
        return [next(labels) for _ in windows]

    truth = [r.about.label for r in at.store.repetitions()]
    from embridge_edge.enrol.choice import _WINDOWS, served

    labels = iter([label for label in truth for _ in range(_WINDOWS)])
    spoilt = replace(prior(), means=prior().means[::-1].copy(), people=prior().people * 1e-4)
    bad = replace(release_of(bundle), prior=spoilt, digest="other")
    view = desk(tmp_path, bad).view(spec())
    found = served(at.store, view, baseline=knows)
    assert found.choice.serves is Serves.RELEASE
    assert found.choice.accuracy == 1.0
    assert found.view is None
    blind = served(at.store, at.view(spec()), baseline=baseline_of(Decoder(bundle, int8=False)))
    assert blind.choice.serves is Serves.WEARER


def test_a_test_round_says_what_was_decided(tmp_path: Path, bundle: Bundle) -> None:
    at = calibrated(tmp_path, bundle)
    enrolled(at)
    script = mixed_round([NEW], SEEN[:4], np.random.default_rng(0), each=2)
    assert sorted(script).count(NEW) == 2
    assert len(script) == 4
    view = at.view(spec())
    played = play(band(WEARER, 5), lambda o: TrialRound(view, script, o, pace=QUICK))
    assert isinstance(played.capture, TrialRound)
    assert [e.asked for e in played.of(Answered)] == script
    assert played.capture.accuracy == 1.0
    assert not played.capture.taken


def test_nobody_enrols_uncalibrated(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(OperatorError) as caught:
        desk(tmp_path, bundle).view(spec())
    assert caught.value.reason is Reason.NOT_FOUND
    assert "embridge calibrate" in caught.value.hint


def test_a_calibration_asks_for_what_is_unlike(bundle: Bundle) -> None:
    chosen = calibration_gestures(release_of(bundle), 3)
    assert len(set(chosen)) == 3
    assert set(chosen) <= set(SEEN)


def test_by_command(tmp_path: Path, bundle: Bundle, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = release(tmp_path)
    file = str(tmp_path / f"{path.manifest.release}.embridge")
    wearing = ["-p", "w1", "--forearm", str(WEARER), "--speed", "0", "--release", file, "--state-dir", "edge"]
    run = CliRunner().invoke

    def ok(app, *arguments: str):
        done = run(app, [*arguments])
        assert done.exit_code == 0, (done.output, done.exception)
        return done

    refused = run(enrol_cli.app, [NEW, *wearing, "--yes"])
    assert isinstance(refused.exception, OperatorError)
    told = ok(calibrate_cli.app, *wearing, "--yes", "--gesture", "fist", "--gesture", "open", "-n", "1").stderr
    assert "Calibrated on" in told
    lines = ok(enrol_cli.app, NEW, *wearing, "--yes", "--json", "-n", "2").stdout.splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds.count("repetition") == 2
    assert kinds[-1] == "model"
    at = ["-p", "w1", "--state-dir", "edge"]
    rows = json.loads(ok(enrol_cli.app, "list", *at, "--json").stdout)
    assert {r["label"]: r["repetitions"] for r in rows} == {"fist": 1, "open": 1, NEW: 2}
    ok(enrol_cli.app, "undo", *at)
    assert NEW not in ok(enrol_cli.app, "list", *at).stdout
    ok(enrol_cli.app, "redo", *at)
    assert NEW in ok(enrol_cli.app, "show", *at).stdout
    assert "of 3 right" in ok(enrol_cli.app, "test", *wearing, "--each", "1").stderr
    # another edge takes over what the cloud would tell
    shared = {"participant": "w1", "entries": json.loads(ok(enrol_cli.app, "show", *at, "--json").stdout)["journal"]}
    (tmp_path / "w1.json").write_text(json.dumps({**shared, "gestures": []}))
    assert "4 entries were new" in ok(enrol_cli.app, "merge", "w1.json", "-p", "w1", "--state-dir", "other").stderr
    assert "2 of them on another edge" in ok(enrol_cli.app, "list", "--state-dir", "other").stdout
    assert run(enrol_cli.app, ["merge", "w1.json", "-p", "w2", "--state-dir", "other"]).exception is not None
    # the agent finds it all in the spool: recordings with prompts and repetitions, and the journal
    spool = Spool(tmp_path / "edge" / "spool.db", 1 << 30)
    sessions = [msgspec.msgpack.decode(s.description, type=Session) for s in spool.sessions() if s.closed]
    assert len(sessions) == len(spool.sessions())
    purposes = [s.purpose for s in sessions if s.streams]
    assert sorted(purposes) == [Purpose.CALIBRATION, Purpose.ENROLMENT, Purpose.EVALUATION]
    assert len([s for s in sessions if not s.streams]) == 4
    enrolment = next(s for s in sessions if s.purpose is Purpose.ENROLMENT and s.streams)
    events = [
        unpack(i.payload, EventMessage).event
        for i in spool.pending(0, 100_000)
        if i.session == enrolment.id and i.stream < 0
    ]
    assert sum(isinstance(e, CueShown) for e in events) == 2
    repetitions = [e for e in events if isinstance(e, Repetition)]
    assert [r.gesture for r in repetitions] == [NEW, NEW]
    assert all(2e9 < r.end_ns - r.start_ns < 6e9 for r in repetitions)
    spool.close()


def test_recordings_take_the_place_of_prompts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    release(tmp_path)
    monkeypatch.setattr(recordings, "load", lambda path, rate: simulated(path.stem, int(rate or 0)))
    common = ["-p", "w1", "--release", str(tmp_path / "embridge-1.embridge"), "--state-dir", str(tmp_path / "edge")]
    names = [word for g in ("fist", "open", "point") for word in ("--gesture", g)]
    replay = ["--replay", "seen", "--rate", str(WEARER), "--yes"]
    done = CliRunner().invoke(calibrate_cli.app, [*common, *names, *replay, "-n", "2"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(enrol_cli.app, [NEW, *common, "--replay", NEW, "--rate", str(WEARER), "--yes", "-n", "2"])
    assert done.exit_code == 0, done.output
    at = desk(tmp_path / "edge", release(tmp_path))
    assert {label: len(at.store.held().of(label)) for label in at.store.held().labels} == {
        **dict.fromkeys(("fist", "open", "point"), 2),
        NEW: 2,
    }
    assert all(r.about.source.startswith("replay:") for r in at.store.repetitions())
    assert accuracy(at.view(spec()), WEARER, (NEW,)) > 0.9
    # what the wearer did elsewhere under another name is refused by its looks
    done = CliRunner().invoke(enrol_cli.app, ["other", *common, "--replay", "other", "--rate", str(WEARER), "--yes"])
    assert done.exit_code != 0
    assert "it looks like" in done.stderr
