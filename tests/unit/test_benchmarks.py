"""The framework of the benchmarks; what they measure is measured elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.framework import Row, compared, found_groups, in_turn, main, row


def test_a_trivial_group_is_written_as_valid_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter([9.0, 9.0, 2.0, 1.0, 6.0, 2.0, 8.0, 8.0])

    def rows() -> list[Row]:
        ours, theirs = in_turn(lambda: next(ticks), lambda: next(ticks), repeats=3)
        return [compared("trivial", "speed", "m/s", ours, peer="snail", theirs=theirs), row("trivial", "n", "", [4.0])]

    def unwanted() -> list[Row]:
        raise AssertionError

    out = tmp_path / "build" / "bench.json"
    assert main(["--only", "trivial", "--out", str(out)], {"trivial": rows, "other": unwanted}) == 0
    first, second = msgspec.json.decode(out.read_bytes(), type=list[Row])
    assert (first.value, first.spread, first.repeats) == (6.0, (2.0, 8.0), 3)
    assert (first.peer, first.peer_value, first.ratio, first.ratio_spread) == ("snail", 2.0, 2.0, (1.0, 3.0))
    assert (second.value, second.peer, second.ratio) == (4.0, "", None)
    assert "snail: 2" in capsys.readouterr().out


def test_a_group_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "tables"], {"chairs": list})
    assert "'tables' (choose from" in capsys.readouterr().err


def test_the_groups_are_found() -> None:
    assert set(found_groups()) >= {"codec", "decode", "forearm", "ingest", "loop", "radio"}
