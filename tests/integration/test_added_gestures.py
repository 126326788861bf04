"""A gesture nobody performed, added by command on an edge that has its release already, is decoded live.

Measured on the simulated forearm, people the release never met: four-way .62 as added and as shipped, .06 with each
other's postures; chance .25.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embridge_edge import gestures_cli
from embridge_edge.decode.added import PoseEncoder, added_gestures, place_all, with_added
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.gestures import find
from embridge_shared.pose_file import write_pose
from embridge_shared.release import Bundle, read_bundle
from support.forearm_release import RATE_HZ, SEEN, SPEC, UNSEEN, perform, release, scale_of

STRANGERS = range(20, 24)
CHANCE = 1 / len(UNSEEN)
pytestmark = pytest.mark.learning


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def bundle(file: Path) -> Bundle:
    return read_bundle(file)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(release(tmp_path_factory.mktemp("shipped"), unseen=UNSEEN, version=2))


@pytest.fixture
def edge(file: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State folder of an edge that runs the release."""
    slots = Slots(tmp_path / "state" / FOLDER)
    path = slots.path(bundle.digest)
    shutil.copyfile(file, path)
    slots.activate(path)
    monkeypatch.setenv("EMBRIDGE_EDGE__STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def command(*args: str) -> str:
    done = CliRunner().invoke(gestures_cli.app, list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def decoded(decoder: Decoder, names: tuple[str, ...]) -> float:
    """Share of live windows inside the holds that score the right one of `names` highest; strangers perform them."""
    own = [decoder.labels.index(n) for n in names]
    hits = []
    for seed in STRANGERS:
        emg, performance = perform(seed, names, 3)
        stream = StreamDecoder(decoder, SPEC, scale_of(seed))
        results = [r for i in range(0, len(emg), 500) for r in stream.push(emg[i : i + 500])]
        for prompt in performance.prompts:
            hits += [
                names[int(np.argmax(r.scores[own]))] == prompt.gesture.name
                for r in results
                if prompt.held_s + 0.5 < r.end / RATE_HZ < prompt.release_s
            ]
    assert len(hits) > 100
    return float(np.mean(hits))


def test_added_by_command_and_decoded_live(edge: Path, bundle: Bundle, tmp_path: Path) -> None:
    for name in UNSEEN[:3]:
        command("add", name, "--from-template")
    pose = tmp_path / "pose.json"
    pose.write_bytes(write_pose(find([UNSEEN[3]])[0]))
    command("add", UNSEEN[3], "--from", str(pose))
    decoder = with_added(Decoder(bundle), edge, "p20")
    assert set(decoder.labels) == {*SEEN, *UNSEEN}
    decoder.self_test()
    right = decoded(decoder, UNSEEN)
    specs = added_gestures(edge, None)
    placed = {p.label: p for p in place_all(bundle, specs)}
    others = [placed[UNSEEN[(i + 1) % len(UNSEEN)]].vectors for i in range(len(UNSEEN))]
    wrong = decoded(Decoder(bundle).extended(UNSEEN, others), UNSEEN)
    assert right > CHANCE + 0.2, (right, wrong)
    assert wrong < CHANCE, (right, wrong)


def test_added_is_as_good_as_shipped(edge: Path, bundle: Bundle, shipped: Bundle) -> None:
    for name in UNSEEN:
        command("add", name, "--from-template")
    encoder = PoseEncoder(bundle)
    labels = [g.label for g in shipped.manifest.gestures]
    rows = np.array(shipped.manifest.rows)
    prior = shipped.wearer_prior()
    assert prior is not None
    for gesture in find(UNSEEN):
        placed = encoder.place(gesture.name, gesture.pose)
        theirs = shipped.prototypes[rows == labels.index(gesture.name)]
        assert len(theirs) == len(placed.vectors)
        # the medoids of nearly equal numbers may be others, as near to the rest
        assert (placed.vectors @ theirs.T).max(axis=1).mean() > 0.99
        np.testing.assert_allclose(placed.posture, prior.postures[prior.gestures.index(gesture.name)], atol=1e-5)
    added = decoded(with_added(Decoder(bundle), edge, None), UNSEEN)
    assert abs(added - decoded(Decoder(shipped), UNSEEN)) < 0.03


def test_what_cannot_be_told_apart_is_refused_by_name(edge: Path, bundle: Bundle) -> None:
    refused = CliRunner().invoke(gestures_cli.app, ["add", "my_fist", "--from-template", "fist"])
    assert refused.exit_code != 0
    assert "'fist'" in str(refused.exception)
    command("add", "my_fist", "--from-template", "fist", "--force")
    assert "my_fist" in with_added(Decoder(bundle), edge, None).labels
    warned = command("similar")
    assert "cannot be told apart" in warned
    assert "my_fist" in warned


def test_a_wearers_gesture_is_theirs_alone(edge: Path, bundle: Bundle) -> None:
    command("add", "shaka", "--from-template", "--participant", "p1")
    assert "shaka" in with_added(Decoder(bundle), edge, "p1").labels
    assert "shaka" not in with_added(Decoder(bundle), edge, "p2").labels
    command("remove", "shaka", "--participant", "p1")
    assert "shaka" not in with_added(Decoder(bundle), edge, "p1").labels
