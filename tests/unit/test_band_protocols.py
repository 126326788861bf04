"""What bands say: every codec undoes itself, refuses what it cannot be, and matches bytes seen on devices."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from embridge_edge.bands.protocol import ganglion, gforce, mudra, myo, npg, open_profile, uart
from embridge_shared.errors import ConfigError, DeviceError, Reason

DOCS = Path(__file__).parents[2] / "docs"


def given(*strategies):
    return lambda test: settings(max_examples=30, deadline=None)(hypothesis_given(*strategies)(test))


def counts(dtype, channels, most=20):
    return npst.arrays(dtype, st.tuples(st.integers(1, most), st.just(channels)))


def refused(decode, data):
    with pytest.raises(DeviceError) as error:
        decode(data)
    assert error.value.reason is Reason.MALFORMED
    return True


# open profile


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), counts("<i2", 16, 7), st.integers(0, 15))
def test_open_packets_survive(seq, first, samples, flags):
    frame = open_profile.decode(open_profile.encode(open_profile.Frame(seq, first, samples, open_profile.Flags(flags))))
    assert (frame.seq, frame.first, frame.flags) == (seq, first, flags)
    np.testing.assert_array_equal(frame.samples, samples)


def test_open_packet_is_laid_out_as_specified():
    samples = np.arange(112, dtype=np.int16).reshape(7, 16) - 5
    data = open_profile.encode(open_profile.Frame(0x0201, 0x06050403, samples, open_profile.Flags.TRIGGER))
    assert data[:8] == bytes([1, 2, 3, 4, 5, 6, 7, 4])
    assert len(data) == 232 <= 244
    assert data[8:12] == b"\xfb\xff\xfc\xff"


@given(st.binary(max_size=260))
def test_open_garbage_is_refused(data):
    if len(data) < 8 or data[6] == 0 or data[7] > 15 or len(data) != 8 + 32 * data[6]:
        assert refused(open_profile.decode, data)


@given(st.integers(0, 255), st.integers(1, 64), st.integers(1, 65535), st.integers(0, 255))
def test_open_information_survives(version, channels, rate_hz, major):
    info = open_profile.Info(version, channels, rate_hz, 0.25, (major, 3), 7, 0xDEADBEEF)
    data = open_profile.encode_info(info)
    assert open_profile.decode_info(data) == info
    assert open_profile.decode_info(data + b"later fields") == info
    assert refused(open_profile.decode_info, data[:-1])


def test_open_commands():
    for command, argument in ((open_profile.Command.START, 0), (open_profile.Command.IDENTIFY, 3)):
        assert open_profile.decode_command(open_profile.encode_command(command, argument)) == (command, argument)
    for data in (b"", b"\x07", b"\x01\x00", b"\x02"):
        assert refused(open_profile.decode_command, data)


# Myo


@given(npst.arrays(np.int8, (2, 8)))
def test_myo_emg_survives(samples):
    data = myo.encode_emg(samples)
    assert len(data) == 16
    np.testing.assert_array_equal(myo.decode_emg(data), samples)


@given(npst.arrays("<i2", 10), npst.arrays("<u2", 8), st.integers(0, 255))
def test_myo_motion_and_smoothed_emg_survive(motion, smoothed, mask):
    np.testing.assert_array_equal(myo.decode_imu(myo.encode_imu(motion))[0], motion)
    values, decoded = myo.decode_fv(myo.encode_fv(smoothed, mask))
    np.testing.assert_array_equal(values[0], smoothed)
    assert decoded == mask


def test_myo_commands_are_those_of_the_device():
    assert myo.set_mode(myo.EmgMode.RAW, myo.ImuMode.DATA) == bytes.fromhex("0103030100")
    assert myo.never_sleep() == bytes.fromhex("090101")
    assert myo.vibrate(3) == bytes.fromhex("030103")
    assert myo.unlock() == bytes.fromhex("0a0102")
    assert myo.led((1, 2, 3), (4, 5, 6)) == bytes.fromhex("0606010203040506")
    assert myo.EMG_SERVICE == "d5060005-a904-deb9-4748-2c7f4a124842"
    assert myo.EMG[3] == "d5060405-a904-deb9-4748-2c7f4a124842"


@given(st.sampled_from(myo.Op), st.binary(max_size=20))
def test_myo_commands_of_another_length_are_refused(op, payload):
    data = myo.encode_command(myo.Command(op, payload))
    if len(payload) == {1: 3, 3: 1, 4: 0, 6: 6, 7: 18, 9: 1, 10: 1, 11: 1}[op]:
        assert myo.decode_command(data) == myo.Command(op, payload)
        assert refused(myo.decode_command, data + b"\0")
    else:
        assert refused(myo.decode_command, data)


def test_myo_information_survives():
    info = myo.Info(b"serial", 2, 1, 0, True, False, 4)
    assert len(myo.encode_info(info)) == 20
    assert myo.decode_info(myo.encode_info(info)) == info
    firmware = myo.Firmware(1, 5, 1970, 2)
    assert myo.decode_firmware(myo.encode_firmware(firmware)) == firmware
    assert refused(myo.decode_emg, bytes(15))
    assert refused(myo.decode_firmware, bytes(7))


# gForce


@given(
    npst.arrays(np.int16, (16, 8), elements=st.integers(-119, 136)), st.integers(0, 2**16 - 1), st.sampled_from([1, 2])
)
def test_gforce_8_bit_survives(samples, seq, seq_bytes):
    body = gforce.encode_emg(samples)
    data = gforce.encode_frame(gforce.Frame(gforce.DataType.EMG, seq, body), seq_bytes)
    assert data[: 1 + seq_bytes] == b"\x08" + seq.to_bytes(2, "little")[:seq_bytes]
    frame = gforce.decode_frame(data, seq_bytes)
    assert (frame.kind, frame.seq, len(frame.body)) == (gforce.DataType.EMG, seq % 256**seq_bytes, 128)
    np.testing.assert_array_equal(gforce.decode_emg(frame.body), samples)


def test_gforce_packets_without_a_number_are_read():
    assert gforce.decode_frame(b"\x08abc", 0) == gforce.Frame(8, None, b"abc")


@given(npst.arrays(np.int16, (8, 8), elements=st.integers(-2000, 2095)))
def test_gforce_12_bit_survives(samples):
    np.testing.assert_array_equal(gforce.decode_emg(gforce.encode_emg(samples, 12), bits=12), samples)


def test_gforce_requests_are_those_of_the_device():
    assert gforce.set_config(gforce.EmgConfig()) == bytes.fromhex("3fe803ff00 8008")
    assert gforce.package_id(True) == bytes.fromhex("2601")
    assert gforce.data_switch(gforce.Notify.EMG) == bytes.fromhex("4f80000000")
    assert gforce.EmgConfig().samples_per_packet == 16
    assert gforce.EmgConfig(500, 0xFF, 128, 12).samples_per_packet == 8
    assert pytest.approx(16.4, abs=0.05) == gforce.UV_PER_COUNT_8_BIT


@given(st.binary(max_size=10))
def test_gforce_replies_survive_or_are_refused(data):
    if len(data) >= 2 and data[0] in (0, 1, 2, 3, 4, 255):
        assert gforce.encode_reply(gforce.decode_reply(data)) == data
    else:
        assert refused(gforce.decode_reply, data)


@given(st.integers(1, 2000), st.integers(1, 0xFFFF), st.sampled_from([8, 12]))
def test_gforce_configuration_survives(rate_hz, mask, bits):
    config = gforce.EmgConfig(rate_hz, mask, 128, bits)
    assert gforce.decode_config(gforce.encode_config(config)) == config


def test_gforce_garbage_is_refused():
    assert refused(gforce.decode_frame, b"\x08\x01")
    assert refused(gforce.decode_emg, bytes(127))
    assert refused(lambda d: gforce.decode_emg(d, bits=12), b"\xff\xff" * 8)
    assert refused(gforce.decode_config, bytes(6))
    with pytest.raises(ConfigError):
        gforce.encode_emg(np.full((1, 8), 200))
    np.testing.assert_allclose(gforce.decode_quaternion(np.ones(4, "<f4").tobytes()), [[1, 1, 1, 1]])
    np.testing.assert_allclose(gforce.decode_motion(np.array([65536, 0, -32768], "<i4").tobytes()), [[1, 0, -0.5]])


# Mudra


@given(counts("<i2", 3, 30), st.integers(0, 0xFFFFFFFF))
def test_mudra_packets_survive(samples, device_us):
    frame = mudra.decode(mudra.encode(mudra.Frame(samples, device_us)))
    np.testing.assert_array_equal(frame.samples, samples)
    assert frame.device_us == device_us


@given(st.binary(max_size=120))
def test_mudra_garbage_is_refused(data):
    if len(data) < 10 or (len(data) - 4) % 6:
        assert refused(mudra.decode, data)


def test_mudra_facts():
    assert len(mudra.encode(mudra.Frame(np.zeros((18, 3), np.int16), 1))) == 112
    assert mudra.enable_snc() == bytes.fromhex("060001")
    assert mudra.enable_snc(False) == bytes.fromhex("060000")
    assert mudra.serial_number(b"1B0F", b"0C\0") == 12 * 1_000_000 + 0x1B0F
    assert mudra.decode_enable(b"\x06\x00\x01") == (6, 0, True)
    assert refused(mudra.decode_enable, b"\x06\x00\x02")
    samples = np.arange(12, dtype=np.int16).reshape(2, 6)
    np.testing.assert_array_equal(mudra.decode_imu(mudra.encode_imu(samples)), samples)


# Ganglion


def ganglion_values(bits):
    half = 1 << (bits - 1)
    return st.integers(-half - 1, half - 1).filter(lambda v: v != -1)


@given(st.integers(0, 99), npst.arrays(np.int32, (2, 4), elements=ganglion_values(18)), st.integers(-128, 127))
def test_ganglion_18_bit_survives(number, values, tail):
    data = ganglion.encode(ganglion.Frame(number, 18, values << 6, ("x", tail)))
    frame = ganglion.decode(data)
    assert (len(data), frame.number, frame.bits) == (20, number, 18)
    np.testing.assert_array_equal(frame.values, values << 6)
    axis = number % 10
    assert frame.acceleration == (("zyx"[axis], tail) if axis < 3 else None)


@given(st.integers(0, 99), npst.arrays(np.int32, (2, 4), elements=ganglion_values(19)))
def test_ganglion_19_bit_survives(number, values):
    frame = ganglion.decode(ganglion.encode(ganglion.Frame(number, 19, values << 5)))
    assert (frame.number, frame.bits) == (number, 19)
    np.testing.assert_array_equal(frame.values, values << 5)


@given(st.lists(npst.arrays(np.int32, (2, 4), elements=st.integers(-30000, 30000)), min_size=3, max_size=8))
def test_ganglion_differences_add_up_until_one_is_missing(steps):
    start = np.array([[1000, -2000, 3000, 4]], np.int32)
    rows = start[0] - np.cumsum(np.concatenate(steps), axis=0)
    steps = [np.where(s == -1, -2, s) for s in steps]
    rows = start[0] - np.cumsum(np.concatenate(steps), axis=0)
    sent = [ganglion.Frame(0, 24, start)] + [ganglion.Frame(i + 1, 18, s) for i, s in enumerate(steps)]
    frames = [ganglion.decode(ganglion.encode(f, 2), 2) for f in sent]
    adder = ganglion.Differences()
    got = [adder.values(f) for f in frames]
    np.testing.assert_array_equal(np.concatenate(got[1:]), rows)
    lossy = ganglion.Differences()
    assert [lossy.values(f) is None for f in [frames[0], *frames[2:], frames[0]]] == [
        False,
        *[True] * (len(frames) - 2),
        False,
    ]


def test_ganglion_impedance_version_and_garbage():
    assert ganglion.decode(b"\xca1234Z" + bytes(5)) == ganglion.Impedance(2, 1234)
    assert ganglion.version_of(b"3.0.1\0") == 3
    assert ganglion.version_of(b"2.0.0") == 2
    assert refused(ganglion.version_of, b"?")
    assert refused(ganglion.decode, bytes(19))
    assert refused(ganglion.decode, b"\xc8" + bytes(19))
    assert refused(ganglion.decode, b"\xc9abcZ")
    assert pytest.approx(0.00187, abs=1e-5) == ganglion.UV_PER_COUNT


# NPG-Lite


@given(st.integers(0, 255), counts(np.int16, 3, 10))
def test_npg_packets_survive(counter, samples):
    ((first, got),) = npg.decode(npg.encode(counter, samples))
    assert first == counter
    np.testing.assert_array_equal(got, samples)


def test_npg_packets_split_where_samples_are_missing():
    data = npg.encode(254, np.ones((3, 3))) + npg.encode(7, np.zeros((2, 3)))
    runs = npg.decode(data)
    assert [(first, len(values)) for first, values in runs] == [(254, 3), (7, 2)]
    assert npg.encode(1, np.array([[258, -2, 0]])) == b"\x01\x01\x02\xff\xfe\x00\x00"
    assert refused(npg.decode, bytes(69))
    assert refused(npg.decode, b"")


# UART profiles


def profile(**packet):
    return uart.UartProfile(name="lab", rate_hz=500, channels=("a", "b"), packet=uart.PacketLayout(**packet))


@given(
    st.sampled_from(["b", "B", "h", "H", "i", "f", "i24"]),
    st.sampled_from(["little", "big"]),
    st.sampled_from(["interleaved", "planar"]),
    st.integers(0, 2**40),
    st.integers(1, 9),
    st.data(),
)
def test_uart_packets_survive(sample, order, layout, counter, n, data):
    bounds = {"b": (-128, 127), "B": (0, 255), "h": (-32768, 32767), "H": (0, 65535)}.get(sample, (-(2**23), 2**23 - 1))
    drawn = data.draw(npst.arrays(np.int64, (n, 2), elements=st.integers(*bounds)))
    codec = uart.Codec(
        profile(sample=sample, order=order, layout=layout, header="2xBI", seq=1, trailer="H", counts="samples")
    )
    seq, values = codec.decode(codec.encode(counter, drawn))
    assert seq == counter % 2**32
    np.testing.assert_array_equal(values, drawn)
    assert values.dtype == codec.decode(codec.encode(0, drawn))[1].dtype


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        ({"sample": "q"}, "packet.sample 'q'"),
        ({"header": "<H"}, "packet.order"),
        ({"header": "zz"}, "packet.header 'zz'"),
        ({"header": "H", "seq": 1, "samples": 2}, "has 1 fields"),
        ({"header": "h", "seq": 0, "samples": 2}, "no unsigned integer"),
        ({"modulus": 10}, "needs packet.seq"),
        ({"header": "B", "seq": 0}, "packet.samples is needed"),
        ({"header": "B", "seq": 0, "samples": 2, "modulus": 300}, "2 to 256"),
    ],
)
def test_uart_profiles_that_describe_nothing_are_refused(packet, says):
    with pytest.raises(ConfigError, match=says):
        uart.check(profile(**packet))


def test_uart_profiles_are_read_from_toml(tmp_path):
    path = tmp_path / "band.toml"
    path.write_text(
        'name = "lab"\nrate_hz = 250.0\nchannels = ["a"]\nscale = 0.5\nunit = "µV"\nstart = "hex:01 ff"\n'
        '[packet]\nheader = "B"\nseq = 0\nmodulus = 200\nsamples = 4\n'
    )
    found = uart.load(path)
    assert (found.spec.n_channels, found.spec.scale, found.spec.calibrated) == (1, 0.5, False)
    assert uart.Codec(found).modulus == 200
    assert uart.command(found.start) == b"\x01\xff"
    path.write_text('name = "lab"\nrate_hz = 250.0\nchannels = ["a"]\nscal = 0.5\n')
    with pytest.raises(ConfigError, match="scal"):
        uart.load(path)
    path.write_text('name = "lab"\nrate_hz = -1.0\nchannels = ["a"]\n')
    with pytest.raises(ConfigError, match="positive rate"):
        uart.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        uart.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="no hexadecimal"):
        uart.command("hex:xy")


def test_the_example_profile_is_true_and_stands_in_the_documentation():
    example = DOCS / "examples" / "uart-band.toml"
    found = uart.load(example)
    assert (found.spec.n_channels, uart.Codec(found).modulus) == (8, 1 << 16)
    assert example.read_text() in (DOCS / "bands.md").read_text()


def test_the_open_profile_is_what_its_specification_says():
    page = (DOCS / "band-profile.md").read_text()
    assert open_profile.SERVICE in page
    assert "`7a1f0002-" in page
    assert open_profile.DATA.startswith("7a1f0002-")
    assert len(open_profile.encode_info(open_profile.Info())) == 16
    for fact in ("16 bytes or more", "<HIBB", "0x80", "0x81", str(open_profile.UV_PER_COUNT)):
        assert fact in page


STREAM = {"header": "2sB", "begins": "hex:a05a", "seq": 1, "samples": 3, "framing": "stream"}


def sent(codec, n, *, decoys=True):
    """Packets whose samples hold what a packet begins with, here and there: only if ``decoys``, and never its end."""
    packets, rng = [], np.random.default_rng(5)
    for i in range(n):
        octets = bytearray(rng.integers(0, 0xA0, 12, np.uint8).tobytes())
        at = 5 * i % 11
        if decoys:
            octets[at : at + 2] = b"\xa0\x5a"
        packets.append(codec.encode(i, np.frombuffer(bytes(octets), "<i2").reshape(3, 2)))
    return packets


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from(["", "hex:c0"]))
def test_a_uart_stream_cut_anywhere_gives_its_packets(cuts, ends):
    codec = uart.Codec(profile(**STREAM, ends=ends, trailer="B"))
    packets = sent(codec, 12)
    framer, stream, got, at = codec.framer(), b"".join(packets), [], 0
    for size in itertools.chain(cuts, itertools.repeat(17)):
        got += framer.push(stream[at : at + size])
        at += size
        if at >= len(stream):
            break
    assert got == (packets if ends else packets[:-1])  # without an end only the next packet tells
    assert framer.skipped == 0
    assert [codec.decode(p)[0] for p in got] == list(range(len(got)))


@given(st.data(), st.sampled_from(["", "hex:c0"]))
def test_a_uart_stream_with_bytes_missing_costs_only_packets_they_were_of(data, ends):
    codec = uart.Codec(profile(**STREAM, ends=ends, trailer="B"))
    packets = sent(codec, 20, decoys=False)
    size, stream = len(packets[0]), b"".join(packets)
    start = data.draw(st.integers(3 * size, 14 * size))
    # Whole packets' worth of bytes can leave halves that look like one: only a counter tells.
    lost = data.draw(st.integers(1, 3 * size).filter(lambda n: n % size))
    stream = stream[:start] + stream[start + lost :]
    framer, got = codec.framer(), []
    for at in range(0, len(stream), 20):
        got += framer.push(stream[at : at + 20])
    whole = [p for i, p in enumerate(packets) if (i + 1) * size <= start or i * size >= start + lost]
    assert set(got) <= set(packets)
    # The one before the hole is not known to be whole where nothing marks its end.
    before = [p for i, p in enumerate(packets) if not ends and (i + 1) * size <= start < (i + 2) * size]
    assert set(whole) - set(got) <= {*before, *whole[-1:]}
    assert got == [p for p in packets if p in got]


def test_a_uart_stream_that_begins_in_the_middle_or_anew_finds_its_place():
    codec = uart.Codec(profile(**STREAM))
    packets, framer = sent(codec, 6), codec.framer()
    assert framer.push(b"".join(packets)[7:]) == packets[1:-1]
    assert framer.skipped == len(packets[0]) - 7
    framer.push(packets[3][:5])
    framer.reset()
    assert framer.push(b"".join(packets)) == packets[:-1]
    noise = codec.framer()
    assert noise.push(bytes(1000)) == []
    assert noise.skipped >= 999


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        ({**STREAM, "begins": ""}, "both are needed"),
        ({**STREAM, "samples": 0}, "both are needed|samples is needed"),
        ({**STREAM, "begins": "hex:00112233"}, "longer than the header, which has 3 bytes"),
        ({**STREAM, "ends": "hex:c0"}, "longer than the trailer, which has 0 bytes"),
    ],
)
def test_uart_streams_that_cannot_be_cut_are_refused(packet, says):
    with pytest.raises(ConfigError, match=says):
        uart.check(profile(**packet))


def test_uart_packets_that_begin_or_end_otherwise_are_refused():
    codec = uart.Codec(profile(header="B", begins="hex:a0", trailer="B", ends="hex:c0", samples=1))
    good = codec.encode(0, np.zeros((1, 2), np.int16))
    assert good == bytes.fromhex("a0 00000000 c0")
    assert codec.decode(good)[1].shape == (1, 2)
    assert refused(codec.decode, b"\xa1" + good[1:])
    assert refused(codec.decode, good[:-1] + b"\xc1")


def test_uart_garbage_is_refused():
    codec = uart.Codec(profile(header="B", seq=0, samples=2))
    assert refused(codec.decode, b"\x01")
    assert refused(codec.decode, bytes(1 + 4))
    assert codec.decode(bytes(1 + 8))[1].shape == (2, 2)
