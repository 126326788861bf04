"""Parts of virtual bands that need no link: adapters by name, feeds, advertisements, radio settings."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys

import bleak
import numpy as np
import pytest
from bumble.core import AdvertisingData
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.bands.protocol.octets import uuid16
from embridge_edge.ble import launch
from embridge_edge.ble.adapter import PlatformAdapter, make_adapter
from embridge_edge.ble.bumble_scanner import read_advertisement
from embridge_edge.ble.host import NotifyingHost
from embridge_edge.ble.stack import BumbleAdapter
from embridge_edge.forearm import Performance, Wearer
from embridge_edge.virtual import gatt
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.feed import FittedFeed, ForearmFeed, LoopFeed, fit, recording_feed
from embridge_edge.virtual.rig import KINDS, kind_of
from embridge_edge.virtual.traits import Traits
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.gestures import find

# adapters


@pytest.mark.parametrize("spec", ["", "platform"])
def test_the_platform_is_the_default(spec):
    adapter = make_adapter(spec)
    assert isinstance(adapter, PlatformAdapter)
    assert (adapter.name, adapter.bluez, adapter.client_backend) == ("platform", {}, None)


def test_a_bluez_adapter_is_named_to_bleak():
    assert make_adapter("hci1").bluez == {"adapter": "hci1"}


def test_a_transport_is_driven_by_bumble():
    adapter = make_adapter("tcp-client:127.0.0.1:9000")
    assert isinstance(adapter, BumbleAdapter)
    assert adapter.name == "tcp-client:127.0.0.1:9000"


@pytest.mark.parametrize("spec", ["bluetooth", "usb", " ", "hci"])
def test_a_name_that_is_no_adapter_is_refused(spec):
    with pytest.raises(ConfigError, match="no Bluetooth adapter") as refused:
        make_adapter(spec)
    assert "tcp-client" in refused.value.hint


async def test_a_transport_bumble_does_not_know_is_refused():
    adapter = make_adapter("pigeon:coop")
    with pytest.raises(Exception, match="pigeon:coop") as refused:
        await adapter.open()
    assert refused.value.reason is Reason.UNREACHABLE


def test_without_bumble_the_extra_is_named():
    code = (
        "import sys; sys.modules['bumble'] = None\n"
        "from embridge_edge.ble.adapter import make_adapter\n"
        "make_adapter('platform')\n"
        "try: make_adapter('usb:0')\n"
        "except Exception as error: print(type(error).__name__, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == 'ConfigError Install it with: pip install "embridge[radio]"', done.stderr


def test_bleak_gets_its_platform_back():
    before = bleak.get_platform_client_backend_type
    undo = launch.use_for_bleak(make_adapter("usb:0"))
    assert bleak.get_platform_client_backend_type is not before
    assert bleak.BleakScanner()._backend.radio.name == "usb:0"
    undo()
    assert bleak.get_platform_client_backend_type is before
    with pytest.raises(OperatorError, match="without help"):
        launch.use_for_bleak(make_adapter(""))


def test_a_program_is_run_with_its_arguments(tmp_path, monkeypatch, capsys):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, json, bleak\nprint(json.dumps([sys.argv[1:], type(bleak.BleakScanner()._backend).__name__]))"
    )
    for name in launch._LOOKED_UP:
        monkeypatch.setattr(bleak, name, getattr(bleak, name))
    monkeypatch.setattr(sys, "argv", [])
    assert launch.main(["usb:0", str(program), "--fast"]) == 0
    assert json.loads(capsys.readouterr().out) == [["--fast"], "Scanner"]
    assert launch.main(["usb:0"]) == 2
    assert launch.main(["nonsense", "x.py"]) == 2


# advertisements


def test_an_advertisement_and_its_answer_become_one():
    services = [uuid16(0xFFD0), "d5060001-a904-deb9-4748-2c7f4a124842"]
    data, response = gatt.advertisement("A band with a long name", *services)
    assert len(data) <= 31
    assert response
    extra = bytes((2, 0x0A, 0xFC, 4, 0xFF, 0x34, 0x12, 7))
    twice = data + response + data + extra  # a controller that repeats the advertisement in the scan response
    heard = read_advertisement(AdvertisingData.from_bytes(twice), -70)
    assert heard.local_name == "A band with a long name"
    assert heard.service_uuids == services
    assert (heard.tx_power, heard.rssi, heard.manufacturer_data) == (-4, -70, {0x1234: b"\x07"})


def test_a_short_name_needs_no_answer():
    data, response = gatt.advertisement("Myo", "d5060001-a904-deb9-4748-2c7f4a124842")
    assert response == b""
    assert read_advertisement(AdvertisingData.from_bytes(data), 0).local_name == "Myo"


@given(st.binary(max_size=31))
def test_no_advertisement_breaks_the_scanner(data):
    heard = read_advertisement(AdvertisingData.from_bytes(data), -1)
    assert all(len(uuid) == 36 for uuid in heard.service_uuids)


@given(st.binary(max_size=40))
def test_no_packet_breaks_the_host(data):
    async def feed() -> None:
        host = NotifyingHost(None, None, lambda _: None)
        host.notified[NotifyingHost.key(1, 2)] = lambda value: None
        host.on_packet(data)
        host.on_packet(b"\x02" + data)
        host.on_packet(b"\x02\x01\x20" + bytes((len(data), 0)) + data)

    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(feed())
    finally:
        logging.disable(logging.NOTSET)


# feeds


def tone(hz: float, rate_hz: float = 2000.0) -> LoopFeed:
    samples = np.sin(2 * np.pi * hz * np.arange(int(rate_hz)) / rate_hz)
    return LoopFeed(samples[:, None] * np.arange(1, 17), rate_hz)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([100.0, 200.0, 500.0, 834.0, 2000.0, 3000.0]),
    st.lists(st.integers(1, 90), min_size=1, max_size=8),
)
def test_a_fitted_feed_is_the_same_in_any_pieces(rate_hz, pieces):
    whole = FittedFeed(tone(20), rate_hz=rate_hz, channels=3).take(sum(pieces))
    feed = FittedFeed(tone(20), rate_hz=rate_hz, channels=3)
    np.testing.assert_array_equal(np.concatenate([feed.take(n) for n in pieces]), whole)


@pytest.mark.parametrize("rate_hz", [200.0, 834.0, 1000.0, 4000.0])
def test_a_fitted_feed_keeps_what_the_new_rate_carries(rate_hz):
    out = FittedFeed(tone(20), rate_hz=rate_hz, channels=8).take(int(2 * rate_hz))[int(rate_hz) :]
    spectrum = np.abs(np.fft.rfft(out[:, 0])) / (len(out) / 2)
    assert spectrum.argmax() == 20
    assert spectrum[20] == pytest.approx(1.0, abs=0.03)


def test_a_fitted_feed_does_not_fold_what_is_too_fast():
    assert np.abs(FittedFeed(tone(190), rate_hz=200.0, channels=1).take(400)[200:]).max() < 0.02


def test_channels_are_taken_around_the_arm():
    assert fit(tone(20), rate_hz=2000.0, channels=16).take(600).shape == (600, 16)
    feed = fit(LoopFeed(np.tile(np.arange(16.0), (10, 1)), 1000.0), rate_hz=1000.0, channels=8)
    np.testing.assert_array_equal(feed.take(1)[0], np.arange(0, 16, 2))
    wider = fit(LoopFeed(np.tile(np.arange(3.0), (10, 1)), 1000.0), rate_hz=1000.0, channels=6)
    np.testing.assert_array_equal(wider.take(1)[0], [0, 0, 1, 1, 2, 2])


def test_a_wearer_performs_without_end():
    wearer = Wearer.random(1)
    performance = Performance(wearer, find(["fist"]), repetitions=1, rng=np.random.default_rng(1))
    feed, again = ForearmFeed(performance, seed=2), ForearmFeed(performance, seed=2)
    assert feed.take(10).shape == (10, 16)
    rest = feed.take(int(feed.rate_hz * (performance.duration_s + 1)))
    assert 1.0 < rest.std() < 2000.0
    np.testing.assert_array_equal(again.take(500)[10:], rest[:490])


@pytest.mark.real_data
def test_a_recording_is_played_in_microvolts(data_dir):
    path = next(data_dir.rglob("S1_A1_E1.mat"))
    feed = recording_feed(path)
    assert np.quantile(np.abs(feed.samples), 0.999) == pytest.approx(1000.0, rel=1e-3)
    assert recording_feed(path, gain_uv=1.0).samples.max() < feed.samples.max()


# what cannot be


def test_impossible_radios_bands_and_feeds_are_refused():
    for wrong in ({"interval_ms": 5.0}, {"phy": 3}, {"ll_octets": 20}, {"pdu_errors": 1.0}, {"jitter_ms": -1.0}):
        with pytest.raises(OperatorError, match="no radio is like this"):
            Air(**wrong)
    for wrong in ({"queue": 0}, {"battery": 101}, {"advertising_ms": 5.0}, {"drift_ppm": 1e6}):
        with pytest.raises(OperatorError, match="no band is like this"):
            Traits(**wrong)
    with pytest.raises(OperatorError, match="no virtual band"):
        kind_of("toaster")
    with pytest.raises(OperatorError, match="channels"):
        FittedFeed(tone(1), rate_hz=0.0, channels=1)
    with pytest.raises(DataError, match="samples"):
        LoopFeed(np.zeros((0, 3)), 10.0)


def test_addresses_are_random_static_and_follow_the_name():
    bands = [kind("usb:9", tone(1), Traits(name=name)) for kind in KINDS.values() for name in ("one", "two")]
    addresses = {band.address for band in bands}
    assert len(addresses) == 2
    assert all(int(address[:2], 16) & 0xC0 == 0xC0 for address in addresses)


async def test_a_band_without_its_controller_says_so():
    band = kind_of("open")("tcp-client:127.0.0.1:1", tone(1))
    with pytest.raises(Exception, match=r"no Bluetooth controller answers at tcp-client:127\.0\.0\.1:1"):
        await band.start()
    with pytest.raises(Exception, match="switched off"):
        _ = band.device
    await band.stop()
    await asyncio.sleep(0)
