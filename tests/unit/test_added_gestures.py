from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from embridge_cloud.postures import poses_of
from embridge_edge import gestures_cli
from embridge_edge.decode.added import PoseEncoder, added_gestures, place_all, with_added
from embridge_edge.decode.runtime import Decoder
from embridge_edge.enrol.store import WearerStore
from embridge_edge.enrol.view import Release, added_for
from embridge_edge.recorded_pose import Moment, posture_at
from embridge_edge.spool import Item, Spool
from embridge_edge.vocabulary import Vocabulary
from embridge_shared import gestures_cli as shared_cli
from embridge_shared.clock import SystemClock
from embridge_shared.enrolment import GestureNote
from embridge_shared.errors import DataError, ModelError, OperatorError, Reason
from embridge_shared.gallery import BEGIN, END, write_gallery
from embridge_shared.gesture_spec import GestureFolder, GestureSpec, known
from embridge_shared.gestures import find, vocabulary
from embridge_shared.hand import JOINTS, LIMITS, REST, landmarks
from embridge_shared.hand.picture import draw
from embridge_shared.performance import Performances, measure
from embridge_shared.pose_file import average, read_pose, write_pose
from embridge_shared.release import PERFORMANCE, POSE, Bundle, read_bundle, write_bundle
from embridge_shared.session import Participant, Session, Side
from embridge_shared.signal import Chunk, Modality, SampleType, StreamSpec
from embridge_shared.wire import codec
from support.bundles import PREPROCESS, D, T, parts
from support.exchange import cloud_settings, joint_spec, seal
from support.sessions import emg_spec, record, session_of

PEACE, OK = find(["peace", "ok"])
USUAL = Performances.usual(rate_hz=100.0, frames=T, prototypes=4, seed=0)


def spec(name: str = "mine", gesture: str = "peace", **more: object) -> GestureSpec:
    (shape,) = find([gesture])
    return GestureSpec(label=name, posture=tuple(shape.pose.tolist()), source=f"template {gesture}", **more)  # type: ignore[arg-type]


def pose_graph() -> bytes:
    """Mean over time, a linear map to D, normalised."""
    weights = np.random.default_rng(3).normal(size=(20, D)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["poses"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "W"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], ["vectors"], axis=-1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "pose",
        [helper.make_tensor_value_info("poses", TensorProto.FLOAT, ["B", T, 20])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["B", D])],
        [numpy_helper.from_array(weights, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    manifest, files = parts()
    path = tmp_path_factory.mktemp("release") / "r.embridge"
    write_bundle(path, manifest, {**files, POSE: pose_graph(), PERFORMANCE: USUAL.pack()})
    return read_bundle(path)


def words(tmp_path: Path, bundle: Bundle | None) -> Vocabulary:
    return Vocabulary(tmp_path, edge="edge-1", clock=SystemClock(), bundle=bundle)


# how people perform


def test_clips_go_from_rest_into_the_shape_and_are_repeatable() -> None:
    clips = USUAL.clips("mine", PEACE.pose)
    assert clips.shape == (120, T, 20)
    assert clips.dtype == np.float32
    np.testing.assert_array_equal(clips, USUAL.clips("mine", PEACE.pose))
    assert not np.array_equal(clips, USUAL.clips("other", PEACE.pose))
    assert (clips >= LIMITS[:, 0].astype(np.float32) - 1e-6).all()
    assert (clips <= LIMITS[:, 1].astype(np.float32) + 1e-6).all()
    np.testing.assert_allclose(clips[:, 0].mean(axis=0), REST, atol=np.deg2rad(3))
    np.testing.assert_allclose(clips[:, -1].mean(axis=0), PEACE.pose, atol=np.deg2rad(3))
    with pytest.raises(DataError):
        USUAL.clips("mine", np.zeros(22))


def test_measured_spreads_are_those_that_were_there() -> None:
    rng = np.random.default_rng(0)
    people, gestures, repetitions = 30, 4, 6
    keys = np.array([(p, g, r) for p in range(people) for g in range(gestures) for r in range(repetitions)]).T
    shapes = rng.normal(0, 0.5, (gestures, 20))
    own = rng.normal(0, 0.15, (people, gestures, 20))
    held = shapes[keys[1]] + own[keys[0], keys[1]] + rng.normal(0, 0.05, (keys.shape[1], 20))
    poses = np.repeat(held[:, None], 10, axis=1).astype(np.float32)
    found = measure(poses, keys, rate_hz=100.0, prototypes=5, seed=7)
    assert found.people == people
    assert np.sqrt(np.diag(found.within)) == pytest.approx(0.05, rel=0.2)
    assert np.sqrt(np.diag(found.between)) == pytest.approx(0.15, rel=0.4)
    assert abs(np.sqrt(np.diag(found.between)).mean() - 0.15) < 0.01
    again = Performances.unpack(found.pack())
    assert again.pack() == found.pack()
    np.testing.assert_array_equal(again.clips("a", np.zeros(20)), found.clips("a", np.zeros(20)))
    few = measure(poses[:3], keys[:, :3], rate_hz=100.0, prototypes=5, seed=7)
    assert few.people == 0
    with pytest.raises(ModelError):
        Performances.unpack(found.pack()[:-9])


# postures in files


@pytest.mark.parametrize("unit", ["deg", "rad"])
def test_a_pose_file_goes_there_and_back(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(write_pose(OK))
    if unit == "rad":
        joints = {j: float(a) for j, a in zip(JOINTS, OK.pose, strict=True)}
        path.write_text(json.dumps({"unit": "rad", "joints": joints, "title": OK.title}))
    found = read_pose(path)
    np.testing.assert_allclose(found.pose, OK.pose, atol=1e-3)
    assert found.title == OK.title


def test_other_formats_say_the_same_pose(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    left = landmarks(OK.pose, Side.LEFT) * 3 + 1
    for text in (
        json.dumps({"frame": 3, "pose": OK.pose.tolist()}),
        json.dumps({"unit": "deg", "pose": np.rad2deg(OK.pose).tolist()}),
        json.dumps({"landmarks": left.tolist(), "side": "left"}),
        "\n".join(json.dumps({"pose": (OK.pose * k).tolist()}) for k in (0.98, 1.0, 0.0, 1.02)),
    ):
        path.write_text(text)
        np.testing.assert_allclose(read_pose(path).pose, OK.pose, atol=1e-6)
    assert read_pose(path).frames == 3
    path.write_text(json.dumps({"unit": "deg", "others": "rest", "joints": {"index_mcp_fe": 60}}))
    found = read_pose(path).pose
    assert np.rad2deg(found[5]) == pytest.approx(60)
    np.testing.assert_array_equal(np.delete(found, 5), np.delete(REST, 5))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"unit": "deg", "joints": {"index_mpc_fe": 3}, "others": "rest"}, "Did you mean index_mcp_fe"),
        ({"unit": "deg", "joints": {"index_mcp_fe": 3}}, "others"),
        ({"joints": {"index_mcp_fe": 3}, "others": "rest"}, "unit"),
        ({"unit": "deg", "joints": {"index_mcp_fe": 170}, "others": "rest"}, "-35° to 95°"),
        ({"unit": "rad", "joints": {"index_mcp_fe": 45}, "others": "rest"}, "degrees called radians"),
        ({"pose": [0.1] * 19}, "20 angles, not 19"),
        ({"pose": [0.0] * 20}, "lost"),
        ({"glove": [100] * 22}, "calibration"),
        ({"pose": [0.1] * 20, "landmarks": [[0, 0, 0]]}, "pose and landmarks"),
        ({}, "none of them"),
        ([], "no pose file"),
    ],
)
def test_a_wrong_pose_file_says_what_to_do(tmp_path: Path, document: object, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        read_pose(path)
    assert message in f"{caught.value} {caught.value.hint}"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=120))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(data)
    with pytest.raises(DataError):
        read_pose(path)


def test_a_mean_leaves_failed_frames_out() -> None:
    frames = np.stack([OK.pose, np.zeros(20), np.full(20, np.nan), OK.pose])
    found = average(frames, "here")
    np.testing.assert_allclose(found.pose, OK.pose)
    assert found.frames == 2
    with pytest.raises(DataError, match="no pose"):
        average(np.zeros((5, 20)), "here")


# what was added


def test_files_are_kept_replaced_and_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = GestureFolder(tmp_path)
    assert folder.all() == {}
    path = folder.write(spec(title="Mine"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.read("mine") == spec(title="Mine")
    folder.write(spec(gesture="ok"))
    assert folder.read("mine").source == "template ok"
    assert known(tmp_path)["mine"].title == "mine"
    (folder.path / "broken.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert list(folder.all()) == ["mine"]
    assert "broken" in caplog.text
    folder.remove("mine")
    folder.remove("broken")
    with pytest.raises(OperatorError):
        folder.remove("mine")


@pytest.mark.parametrize("name", ["Rest", "a b", "rest", "unknown", "../up", "", "x" * 49])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(DataError):
        spec(name)


def test_placed_gestures_join_the_scores(bundle: Bundle, tmp_path: Path) -> None:
    words(tmp_path, bundle).add(spec())
    words(tmp_path, bundle).add(spec("yours", "fist"), participant="p1")
    plain = Decoder(bundle, int8=False)
    decoder = with_added(plain, tmp_path, "p1")
    assert decoder.labels == ("g0", "g1", "g2", "mine", "yours")
    assert with_added(plain, tmp_path, None).labels == ("g0", "g1", "g2", "mine")
    assert plain.labels == ("g0", "g1", "g2")
    window = np.random.default_rng(0).random((T, 4)).astype(np.float32)
    scores = decoder.scores(window)
    assert scores.shape == (5,)
    np.testing.assert_array_equal(scores[:3], plain.scores(window))
    placed = {p.label: p for p in place_all(bundle, added_gestures(tmp_path, "p1"))}
    similar = np.sort((decoder.embed(window) @ placed["mine"].vectors.T).max(axis=0))[-3:]
    assert scores[3] == pytest.approx(similar.mean(), abs=1e-6)
    decoder.self_test()
    with pytest.raises(DataError):
        plain.extended(["g1"], [placed["mine"].vectors])
    with pytest.raises(DataError):
        plain.extended(["x"], [placed["mine"].vectors[:, 1:]])


def test_a_release_that_places_no_postures_decodes_what_it_has(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, files = parts()
    write_bundle(tmp_path / "old.embridge", manifest, files)
    old = read_bundle(tmp_path / "old.embridge")
    with pytest.raises(ModelError) as caught:
        words(tmp_path, old).add(spec())
    assert caught.value.reason is Reason.INCOMPATIBLE
    words(tmp_path, None).add(spec())
    with caplog.at_level(logging.WARNING):
        assert with_added(Decoder(old), tmp_path, None).labels == ("g0", "g1", "g2")
    assert "not decoded" in caplog.text
    with pytest.raises(ModelError):
        PoseEncoder(old)


def test_twins_are_refused_by_name_unless_forced(bundle: Bundle, tmp_path: Path) -> None:
    for release in (bundle, None):
        folder = tmp_path / str(release is None)
        here = words(folder, release)
        here.add(spec())
        with pytest.raises(OperatorError, match="'mine'") as caught:
            here.add(spec("twin"))
        assert "--force" in caught.value.hint
        done = here.add(spec("twin"), force=True)
        assert next(p.b for p in done.doubtful) == "mine"
        with pytest.raises(OperatorError, match="before"):
            here.add(spec("mine", "horns"))
        assert not here.add(spec("far", "open")).doubtful
        assert {(p.a, p.b) for p in here.compare().doubtful() if not p.apart} == {("mine", "twin")}
    with pytest.raises(OperatorError, match="already"):
        words(tmp_path, bundle).add(spec("g1"))


def test_a_wearers_gesture_can_be_undone(tmp_path: Path) -> None:
    here = words(tmp_path, None)
    here.add(spec(hint="Like so."), participant="p1")
    store = WearerStore(tmp_path, "p1", edge="edge-1", clock=SystemClock())
    assert GestureSpec.of(store.held().gestures["mine"]).hint == "Like so."
    here.remove("mine", participant="p1")
    assert added_gestures(tmp_path, "p1") == {}
    store.undo()
    assert list(added_gestures(tmp_path, "p1")) == ["mine"]
    assert added_gestures(tmp_path, "p2") == {}


# postures out of recordings


def test_the_mean_posture_of_a_take(tmp_path: Path) -> None:
    stream = StreamSpec(
        name="pose", modality=Modality.POSE, channels=JOINTS, rate_hz=60.0, dtype=SampleType.FLOAT32, unit="rad"
    )
    session = Session(
        id=UUID(int=5),
        edge="edge-1",
        participant=Participant(id="p1"),
        streams=(stream,),
        started_ns=10**18,
        host_ns=0,
    )
    rng = np.random.default_rng(0)
    frames = np.repeat(np.stack([REST, OK.pose, PEACE.pose]), 60, axis=0) + rng.normal(0, 0.01, (180, 20))
    frames[70:75] = 0
    spool = Spool(tmp_path / "spool.db", 1 << 24)
    spool.begin(session.id, "wave", msgspec.msgpack.encode(session), Item(session.id, -1, 0, 1, "t", b"x"))
    items = []
    for first in range(0, 180, 30):
        samples = frames[first : first + 30].astype(np.float32)
        chunk = Chunk(session.id, 0, first, samples, 10**18 + round(first / 60 * 1e9))
        items.append(Item(session.id, 0, first, 30, "t", codec.encode(chunk)))
    spool.put(items)
    spool.close()
    found = posture_at(Moment.parse("wave@1.05..1.95"), tmp_path / "spool.db")
    np.testing.assert_allclose(found.pose, OK.pose, atol=0.01)
    assert 45 < found.frames < 54
    assert found.spread is not None
    assert found.spread.max() < 0.02
    with pytest.raises(DataError, match="0 pose frames"):
        posture_at(Moment.parse("wave@9..10"), tmp_path / "spool.db")
    with pytest.raises(OperatorError, match="no recording"):
        posture_at(Moment.parse("other@1..2"), tmp_path / "spool.db")


@pytest.mark.parametrize("text", ["wave", "wave@3", "wave@3..2", "@1..2", "wave@a..b"])
def test_no_stretch_is_refused(text: str) -> None:
    with pytest.raises(OperatorError):
        Moment.parse(text)


# pictures and commands


@pytest.mark.parametrize("name", list(vocabulary()))
def test_every_picture_is_small_and_whole(name: str) -> None:
    text = draw(vocabulary()[name].pose, title=vocabulary()[name].title)
    root = ElementTree.fromstring(text)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert len(text) < 12_000
    assert "prefers-color-scheme:dark" in text
    paths = [p.attrib["d"] for p in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) >= 32
    for group, offset in zip(root.iter("{http://www.w3.org/2000/svg}g"), (0, 320), strict=True):
        for path in group.iter("{http://www.w3.org/2000/svg}path"):
            x, y = map(float, path.attrib["d"][1:].replace("A", " ").replace("a", " ").replace("L", " ").split()[:2])
            assert 0 <= x + offset <= width, name
            assert 0 <= y <= height, name


def test_left_and_right_hands_are_drawn_mirrored() -> None:
    assert draw(OK.pose, side=Side.LEFT).count("scale(-1 1)") == 2
    assert "scale(-1 1)" not in draw(OK.pose)
    with pytest.raises(DataError):
        draw(np.zeros(3))


def test_a_gallery_keeps_what_stands_around_it(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "g.md"
    page.parent.mkdir()
    page.write_text(f"# Before\n\n{BEGIN}\nOUTDATED\n{END}\nafter\n")
    assert write_gallery(page, tmp_path / "docs" / "img") == len(vocabulary())
    text = page.read_text()
    assert text.startswith("# Before")
    assert text.endswith("after\n")
    assert "OUTDATED" not in text
    assert all(f"img/{name}.svg" in text for name in vocabulary())
    write_gallery(page, tmp_path / "docs" / "img")
    assert page.read_text() == text


def test_the_gallery_in_the_documentation_is_up_to_date(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    write_gallery(tmp_path / "gestures.md", tmp_path / "img" / "gestures")
    assert (tmp_path / "gestures.md").read_text().strip() in (docs / "gestures.md").read_text(), "make it anew"
    for picture in (tmp_path / "img" / "gestures").iterdir():
        assert (docs / "img" / "gestures" / picture.name).read_bytes() == picture.read_bytes()


def test_commands_add_show_export_draw_and_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBRIDGE_EDGE__STATE_DIR", str(tmp_path))

    def run(app: object, *args: str) -> str:
        done = CliRunner().invoke(app, list(args), catch_exceptions=False)  # type: ignore[arg-type]
        assert done.exit_code == 0, done.output
        return done.output

    assert "added horns" in run(gestures_cli.app, "add", "horns", "--from-template", "--title", "Rock")
    exported = tmp_path / "horns.json"
    run(shared_cli.app, "export", "horns", "--out", str(exported))
    added = run(gestures_cli.app, "add", "mine", "--from", str(exported), "--force", "--json")
    assert '"source": "pose horns.json"' in added
    assert "mine" in run(shared_cli.app, "list", "--family", "own")
    assert "horns 1.00" in run(shared_cli.app, "show", "mine")
    run(shared_cli.app, "picture", "mine", "--out", str(tmp_path / "mine.svg"), "--side", "left", "--view", "palm")
    assert (tmp_path / "mine.svg").read_text().startswith("<svg")
    assert "cannot be told apart" in run(gestures_cli.app, "similar")
    assert json.loads(run(gestures_cli.app, "similar", "peace", "fist", "--json").split("\ncompared")[0])[
        "gestures"
    ] == [
        "peace",
        "fist",
    ]
    run(gestures_cli.app, "remove", "mine")
    assert "mine" not in run(shared_cli.app, "list", "--family", "own")
    for wrong in (
        ["add", "x"],
        ["add", "x", "--from-template", "ok", "--from", "y.json"],
        ["similar", "nothing", "ok"],
    ):
        assert isinstance(CliRunner().invoke(gestures_cli.app, wrong).exception, OperatorError)


def test_poses_of_a_sealed_session(tmp_path: Path) -> None:
    recording = record(session_of(emg_spec(), joint_spec()), gaps=False)
    sealed = seal(cloud_settings(tmp_path), recording)
    t_s, poses = poses_of(sealed.directory)
    assert poses.shape == (len(t_s), 20)
    assert 2.5 < t_s.max() - t_s.min() < 3.5
    assert abs(t_s.min()) < 0.1
    # the recording is noise that no hand makes; that it is refused shows that it was read
    with pytest.raises(DataError, match="°"):
        posture_at(Moment.parse(f"{sealed.directory}@0.5..1.5"), tmp_path / "spool.db")


def test_a_wearers_model_knows_them_as_it_knows_shipped_ones(tmp_path: Path) -> None:
    GestureFolder(tmp_path).write(spec("everyones", "ok"))
    words(tmp_path, None).add(spec(), participant="p1")
    store = WearerStore(tmp_path, "p1", edge="edge-1", clock=SystemClock())
    store.commit((), define=(GestureNote(label="unposed"),))
    release = Release("r", "0", PREPROCESS, None, performances=USUAL)
    found = added_for(release, store)
    assert set(found) == {"everyones", "mine", "unposed"}
    assert found["unposed"].posture is None
    assert found["mine"].posture is not None
    np.testing.assert_allclose(found["mine"].posture, USUAL.clips("mine", PEACE.pose).mean(axis=(0, 1)), atol=1e-6)
    plain = added_for(replace(release, performances=None), store)
    assert plain["mine"].posture == spec().posture
