from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

from embridge_cloud.learn import communities, objectives
from embridge_cloud.learn.align import prepare
from embridge_cloud.learn.augment import augment
from embridge_cloud.learn.config import AugmentConfig, CascleConfig, ElectrodeConfig, LearnConfig, SignalConfig
from embridge_cloud.learn.electrodes import even_ring, places, split_electrodes
from embridge_cloud.learn.encoders import Encoder, MaskedAutoencoder, patchify
from embridge_cloud.learn.linear import LinearPath
from embridge_cloud.learn.model import Bridge, embed_emg
from embridge_cloud.learn.normalise import causal_normalise
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.spectrum import LogSpectrum
from embridge_shared.errors import ConfigError, DataError, ModelError

change = msgspec.structs.replace


def _electrodes(channels: int = 10, **values: object) -> LearnConfig:
    config = quick(channels=channels)
    signal = change(config.emg, electrodes=ElectrodeConfig(**values))  # type: ignore[arg-type]
    return change(config, emg=signal, linear=change(config.linear, l2=0.0))


def _encoder(config: LearnConfig) -> Encoder:
    torch.manual_seed(0)
    return Encoder(config.emg, config.encoder).eval()


def test_label_smoothing_is_that_of_torch() -> None:
    torch.manual_seed(0)
    b, epsilon = 16, 0.1
    logits = torch.randn(b, b)
    alpha = epsilon / (1 - epsilon)
    targets = objectives.even_targets(b, logits.device)
    assert torch.all(targets.diagonal() == 0)
    assert torch.allclose(targets.sum(1), torch.ones(b))
    ours = objectives.info_nce(logits) + alpha * objectives.cascle(logits, targets)
    # torch gives the own pose its share of epsilon as well
    theirs = functional.cross_entropy(logits, torch.arange(b), label_smoothing=epsilon * b / (b - 1))
    assert ours.item() == pytest.approx((1 + alpha) * theirs.item(), rel=1e-5)
    assert torch.equal(objectives.even_targets(1, logits.device), torch.zeros(1, 1))


@pytest.mark.parametrize("targets", ["communities", "smoothing", "instances"])
@pytest.mark.parametrize("model", ["kmeans", "gmm"])
def test_the_loss_is_its_parts_with_every_target(targets: str, model: str) -> None:
    config = quick(channels=6)
    cascle = CascleConfig(targets=targets, model=model, centroids=8)  # type: ignore[arg-type]
    config = change(config, loss=change(config.loss, symmetric=False, cascle=cascle))
    torch.manual_seed(0)
    bridge = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.encoder), config)
    prepare(bridge, np.random.default_rng(0).normal(size=(64, 160, 20)).astype(np.float32), seed=0)
    g = torch.Generator().manual_seed(1)
    emg, pose = torch.randn(12, 160, 6, generator=g), torch.randn(12, 160, 20, generator=g)
    losses = bridge.losses(emg, pose)
    y = losses.targets
    assert torch.allclose(y.sum(1), torch.ones(12), atol=1e-5)
    assert torch.all(y.diagonal() == 0)
    assert torch.all(y >= 0)
    logits = objectives.similarity(losses.q, losses.v, "max") / bridge.tau
    smoothed = (torch.eye(12) + 0.5 * y) / 1.5
    together = 1.5 * -(smoothed * logits.log_softmax(1)).sum(1).mean()
    assert (losses.nce + 0.5 * losses.cascle).item() == pytest.approx(together.item(), rel=1e-4)
    entropy = objectives.target_entropy(y)
    assert entropy == pytest.approx(math.log(11), rel=1e-4) if targets == "smoothing" else entropy < math.log(11)
    assert communities.check_targets(entropy, 12) == (targets != "smoothing" and entropy <= 0.9 * math.log(11))


def test_instance_targets_follow_the_cosine() -> None:
    v = functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=1)
    y = objectives.soft_targets(v, 0.1)
    assert y[0, 1] > 0.99
    assert y[2, 1] > y[2, 0]


def test_a_mixture_is_deterministic_and_finds_its_components() -> None:
    rng = np.random.default_rng(0)
    hubs = np.eye(6)[:4]
    x = (
        hubs[np.arange(400) % 4]
        + rng.normal(size=(400, 6)) * np.array([0.05, 0.1, 0.2, 0.05])[np.arange(400) % 4, None]
    )
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    means, spread = communities.mixture(x, 4, seed=0)
    again = communities.mixture(x, 4, seed=0)
    assert np.array_equal(means, again[0])
    assert np.array_equal(spread, again[1])
    nearest = (means @ hubs.T).argmax(axis=1)
    assert sorted(nearest) == [0, 1, 2, 3]
    assert spread[nearest.tolist().index(2), 0] > 2 * spread[nearest.tolist().index(0), 0]
    np.testing.assert_allclose(np.exp(spread[:, 1]).sum(), 1, atol=1e-5)
    rows = objectives.responsibility_rows(torch.from_numpy(x), torch.from_numpy(means), torch.from_numpy(spread))
    assert torch.allclose(rows.square().sum(1), torch.ones(400), atol=1e-5)
    heavy = torch.tensor([[1.0, 0.7], [1.0, 0.3]])
    heavy[:, 1].log_()
    between = objectives.responsibility_rows(torch.zeros(1, 2), torch.eye(2), heavy)
    assert torch.allclose(between, torch.tensor([[0.7, 0.3]]).sqrt())
    same = rows @ rows.T
    assert same[0, 4] > 0.9
    assert same[0, 1] < 0.1
    with pytest.raises(DataError):
        communities.mixture(x[:4], 2, seed=0)


def test_a_summary_reader_has_no_qformer() -> None:
    config = quick(channels=6)
    plain = change(config, loss=change(config.loss, lam=0.0), qformer=change(config.qformer, reader="summary"))
    torch.manual_seed(0)
    bridge = Bridge(Encoder(plain.emg, plain.encoder), Encoder(plain.pose, plain.encoder), plain)
    assert sum(p.numel() for p in bridge.qformer.parameters()) == 64 * 64 + 64
    assert bridge.queries(torch.randn(3, 160, 6)).shape == (3, 1, 64)
    assert embed_emg(bridge, np.zeros((0, 160, 6), np.float32)).shape == (0, 1, 64)
    with pytest.raises(ModelError):
        bridge.rebuild_error(torch.randn(1, 1, 64), torch.randn(1, 160, 20))
    with pytest.raises(ConfigError, match="summary"):
        change(config, qformer=change(config.qformer, reader="summary"))


@pytest.mark.parametrize("channels", [8, 10, 16])
def test_one_encoder_reads_any_band(channels: int) -> None:
    config = _electrodes(10)
    encoder = _encoder(config)
    x = torch.randn(3, 160, channels)
    with torch.no_grad():
        assert encoder(x).shape == (3, 1 + 8 * channels, 64)
        # the same band, described by hand
        hand = places(channels, 4, angles_deg=[i * 360 / channels for i in range(channels)])
        assert torch.allclose(encoder(x), encoder(x, hand), atol=1e-5)
        pose = Encoder(config.pose, config.encoder)
        bridge = Bridge(encoder, pose, config)
        assert embed_emg(bridge, x.numpy()).shape == (3, 8, 64)
        # a frozen encoder of mixed channels refuses
        mixed = _encoder(quick(channels=12))
        with pytest.raises(DataError, match="channels"):
            mixed(x)


def test_electrodes_are_known_by_their_place_alone() -> None:
    encoder = _encoder(_electrodes(8))
    x = torch.randn(2, 160, 8)
    ring = even_ring(8, ElectrodeConfig())
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = encoder(x)[:, 0]
        assert torch.allclose(plain, encoder(x[:, :, order], ring[order])[:, 0], atol=1e-5)
        assert not torch.allclose(plain, encoder(x[:, :, order])[:, 0], atol=1e-3)
        # fewer electrodes of the same ring are still read
        assert encoder(x[:, :, ::2], ring[::2]).shape == (2, 33, 64)


def test_electrode_places_tell_angle_and_distance() -> None:
    found = places(3, 2, angles_deg=(0.0, 90.0, 90.0), along_mm=(0.0, 0.0, 100.0))
    assert torch.allclose(found[0], torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(found[1], torch.tensor([0.0, -1.0, 1.0, 0.0, 0.0]), atol=1e-6)
    assert found[2, 4] == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="electrodes"):
        SignalConfig(channels=4, electrodes=ElectrodeConfig(angles_deg=(0.0, 1.0)))


def test_electrode_patches_hold_one_channel() -> None:
    x = torch.arange(2 * 6 * 3.0).reshape(2, 6, 3)
    units = split_electrodes(patchify(x, 2), 2)
    assert units.shape == (2, 9, 2)
    assert torch.equal(units[1, 3 * 2 + 1], x[1, 4:6, 1])


@pytest.mark.parametrize("target", ["waveform", "spectrum"])
@pytest.mark.parametrize("one", [False, True])
def test_masked_targets_are_those_of_the_hidden_tokens(target: str, one: bool) -> None:
    config = _electrodes(6) if one else quick(channels=6)
    mae = change(config.emg_mae, target=target, normalise_target=False)
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(config.emg, config.encoder), mae)
    with torch.no_grad():
        model.head.weight.zero_()
    x = torch.rand(4, 160, 6) + 0.1
    tokens = 48 if one else 8
    torch.manual_seed(5)
    hidden = torch.rand(4, tokens).argsort(dim=1)[:, tokens // 2 :]
    torch.manual_seed(5)
    loss, masked = model(x)
    values = model.target(model.encoder.patches(x))
    assert values.shape[:2] == (4, tokens)
    assert loss.item() == masked.item()
    assert masked.item() == pytest.approx(values.square().mean(2).gather(1, hidden).mean().item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in model.head.parameters())


def test_the_spectrum_tells_a_tone_by_its_band() -> None:
    signal = SignalConfig(rate_hz=2000.0, channels=3, window=400, patch=200)
    mae = change(quick().emg_mae, target="spectrum", bands=8, band_hz=(20.0, 450.0))
    spectrum = LogSpectrum(signal, mae)
    assert spectrum.bands == 8
    t = torch.arange(400) / 2000
    x = torch.stack([(2 * math.pi * f * t).sin() for f in (50.0, 430.0, 900.0)], dim=1)[None]
    found = spectrum(patchify(x, 200)).reshape(1, 2, 8, 3)[0, 0]
    assert found[:, 0].argmax() == 0
    assert found[:, 1].argmax() == 7
    # beyond what was recorded nothing is predicted
    assert found[:, 2].max() < found[:, 0].max() - 2
    assert torch.allclose(spectrum(patchify(x, 200)), spectrum(patchify(-x, 200)), atol=1e-5)
    with pytest.raises(ConfigError, match="no frequency"):
        LogSpectrum(signal, change(mae, band_hz=(1001.0, 1002.0)))
    with pytest.raises(ConfigError):
        change(mae, band_hz=(450.0, 20.0))
    # an envelope's patch carries fewer bands than asked for
    assert LogSpectrum(SignalConfig(rate_hz=100.0, channels=3, window=160, patch=10), mae).bands <= 6


def test_the_ring_turns_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    x = torch.rand(100, 40, 10)
    turned = augment(x, AugmentConfig(roll=2, ring=8), 20)
    assert torch.equal(turned[:, :, 8:], x[:, :, 8:])
    shifts = [
        next(s for s in range(-2, 3) if torch.equal(r[:, :8], w[:, :8].roll(s, 1)))
        for r, w in zip(turned, x, strict=True)
    ]
    assert set(shifts) == {-2, -1, 0, 1, 2}


def test_aggressive_masks_vary_and_leave_an_electrode() -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 20, 8)
    silent = (augment(x, AugmentConfig(channel_mask_upto=0.9), 20) == 0).all(1).sum(1)
    assert silent.max() == 7
    assert silent.min() == 0
    assert silent.float().mean().item() == pytest.approx(0.45 * 8, rel=0.1)
    with pytest.raises(ConfigError):
        AugmentConfig(channel_mask_upto=1.0)


def test_noise_and_shared_gain_move_levels() -> None:
    torch.manual_seed(0)
    x = torch.rand(500, 1, 4).expand(500, 40, 4) + 1
    noisy = augment(x, AugmentConfig(noise=0.5), 20) - x
    assert noisy[:, 0].std().item() == pytest.approx(0.5 * x[:, 0].std().item(), rel=0.1)
    gains = augment(x, AugmentConfig(shared_gain_db=3.0), 20) / x
    assert torch.allclose(gains, gains[:, :1, :1].expand_as(gains), atol=1e-5)
    assert (20 * gains[:, 0, 0].log10()).std().item() == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("keep", ["nothing", "shared", "side"])
def test_the_running_normaliser_never_looks_ahead(keep: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((3000, 4)) * np.array([1, 2, 4, 8])).astype(np.float32)
    other = x.copy()
    other[2000:] *= 10
    one, two = (causal_normalise(v, 100.0, keep=keep) for v in (x, other))  # type: ignore[arg-type]
    np.testing.assert_allclose(one.emg[:2000], two.emg[:2000], rtol=1e-3)
    assert one.emg.shape == (3000, 5 if keep == "side" else 4)
    assert one.state.shape == (3000, 4)
    level = np.abs(one.emg[2000:, :4]).mean(axis=0)
    np.testing.assert_allclose(level / level.mean(), 1, atol=0.1)


def test_the_running_normaliser_keeps_intensity_where_told_to() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((4000, 3)).astype(np.float32)
    x[2000:] *= 3
    plain, shared, side = (
        causal_normalise(x, 100.0, half_life_s=2.0, keep=keep)
        for keep in ("nothing", "shared", "side")  # type: ignore[arg-type]
    )

    def grown(values: np.ndarray) -> float:
        return float(np.abs(values[3500:]).mean() / np.abs(values[1500:2000]).mean())

    assert grown(plain.emg) == pytest.approx(1, abs=0.1)
    assert grown(shared.emg) == pytest.approx(3, abs=0.2)
    assert np.exp(side.emg[3500:, 3].mean() - side.emg[1500:2000, 3].mean()) == pytest.approx(3, abs=0.2)
    assert np.exp(shared.state[3999] - shared.state[1999]).mean() == pytest.approx(3, abs=0.4)
    with pytest.raises(DataError):
        causal_normalise(x[:0], 100.0)
    with pytest.raises(ConfigError):
        causal_normalise(x, 100.0, half_life_s=0.0)


def test_a_clean_path_reads_windows_before_augmentation() -> None:
    config = quick(channels=6)
    torch.manual_seed(0)
    bridge = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.encoder), config).eval()
    assert bridge.path is not None
    torch.nn.init.normal_(bridge.path.weight)
    x = torch.rand(4, 160, 6)
    with torch.no_grad():
        # the projection starts near zero: queries follow what the path reads
        kept, moved = bridge.read(x * 0, x)[1], bridge.read(x * 0)[1]
        plain = bridge.queries(x)
    assert (kept * plain).sum(2).min() > 0.95
    assert (moved * plain).sum(2).mean() < 0.9


def test_discriminants_part_classes_a_ridge_would_mask() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(600) % 3
    # three classes in a row: least squares never chooses the middle one
    x = np.zeros((600, 24), np.float32)
    x[:, 0] = label + 0.1 * rng.normal(size=600)
    x[:, 1:] = rng.normal(size=(600, 23))
    path = LinearPath(quick(channels=6).emg, 3)
    bias = path.fit_classes(x, label, 0.1)
    found = ((torch.from_numpy(x) - path.mean) / path.sd) @ path.weight + torch.from_numpy(bias)
    assert (found.argmax(1).numpy() == label).mean() > 0.95


def test_rich_features_are_roots_and_spreads() -> None:
    signal = quick(channels=6).emg
    x = torch.rand(3, 160, 6) + 0.5
    plain, rich = LinearPath(signal, 4), LinearPath(signal, 4, rich=True)
    levels, both = plain.features(patchify(x, 20)), rich.features(patchify(x, 20))
    assert torch.allclose(both[:, :24], levels.sqrt())
    spread = both[:, 24:]
    assert spread.shape == (3, 6)
    assert torch.allclose(spread, (x.std(1) + 0.1).log(), atol=1e-5)
