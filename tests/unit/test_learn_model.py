from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch

from embridge_cloud.learn import communities, objectives
from embridge_cloud.learn.align import fit_path, prepare, rebuild_reliance
from embridge_cloud.learn.augment import augment
from embridge_cloud.learn.config import AugmentConfig, LearnConfig, QFormerConfig
from embridge_cloud.learn.encoders import Encoder, MaskedAutoencoder, patchify
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.presets import faithful, quick
from embridge_shared.errors import DataError, ModelError
from support.learn_world import paired


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _bridge(config: LearnConfig, seed: int = 0) -> Bridge:
    torch.manual_seed(seed)
    return Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.encoder), config)


@pytest.fixture
def small() -> Bridge:
    model = _bridge(quick(channels=6))
    prepare(model, np.random.default_rng(0).normal(size=(64, 160, 20)).astype(np.float32), seed=0)
    return model


def _batch(n: int = 12, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 160, 6, generator=g), torch.randn(n, 160, 20, generator=g)


def test_patches_hold_consecutive_samples_of_every_channel() -> None:
    x = torch.arange(2 * 6 * 3.0).reshape(2, 6, 3)
    patches = patchify(x, 2)
    assert patches.shape == (2, 3, 6)
    assert torch.equal(patches[1, 2], x[1, 4:6].flatten())


def test_faithful_sizes_are_the_published_ones() -> None:
    config = faithful()
    model = _bridge(config)
    former = model.qformer
    training_only = _count(former.rebuild_head) + former.mask_token.numel()
    cross = sum(_count(layer.cross) for layer in former.layers if layer.cross is not None)
    assert _count(model.emg) == pytest.approx(3.98e6, rel=0.01)
    assert _count(model.pose) == pytest.approx(3.22e6, rel=0.01)
    assert _count(model.emg) + _count(former) - training_only == pytest.approx(7.74e6, rel=0.01)
    assert cross == pytest.approx(0.53e6, rel=0.01)
    # the published 4.79 M counts the rebuilding head for 2 kHz pose patches of 4000 values
    head = config.encoder.width * 4000 + 4000
    assert _count(former) - _count(former.rebuild_head) + head == pytest.approx(4.79e6, rel=0.01)


def test_faithful_shapes() -> None:
    config = faithful()
    model = _bridge(config).eval()
    emg, pose = torch.randn(2, 4000, 16), torch.randn(2, 200, 20)
    with torch.no_grad():
        assert model.emg(emg).shape == (2, 21, 256)
        assert model.qformer(model.emg(emg)).shape == (2, 16, 256)
        q, v = model.queries(emg), model.vectors(pose)
    assert q.shape == (2, 16, 256)
    assert v.shape == (2, 256)
    assert torch.allclose(q.norm(dim=2), torch.ones(2, 16), atol=1e-5)
    assert torch.allclose(v.norm(dim=1), torch.ones(2), atol=1e-5)


def test_cross_attention_sits_in_layers_0_and_2() -> None:
    layers = _bridge(faithful()).qformer.layers
    assert [layer.cross is not None for layer in layers] == [True, False, True, False]


@pytest.mark.parametrize("separate", [False, True])
def test_qformer_starts_as_a_copy_of_the_pose_encoder(separate: bool) -> None:
    config = quick()
    pose = Encoder(config.pose, config.encoder)
    with torch.no_grad():
        for p in pose.parameters():
            p.add_(torch.randn_like(p))
    model = Bridge(
        Encoder(config.emg, config.encoder), pose, _with_queries(config, QFormerConfig(separate_ffn=separate))
    )
    for layer, block in zip(model.qformer.layers, pose.blocks, strict=True):
        for name, value in block.state_dict().items():
            assert torch.equal(layer.state_dict()[name], value), name
        if separate:
            assert torch.equal(layer.query_ffn.expand.weight, block.ffn.expand.weight)
    assert torch.equal(model.qformer.norm.weight, pose.norm.weight)
    before = pose.blocks[0].ffn.expand.weight.clone()
    with torch.no_grad():
        model.qformer.layers[0].ffn.expand.weight.zero_()
    assert torch.equal(pose.blocks[0].ffn.expand.weight, before)


def _with_queries(config: LearnConfig, queries: QFormerConfig) -> LearnConfig:
    return msgspec.structs.replace(config, qformer=queries)


def test_qformer_refuses_a_pose_encoder_of_another_size() -> None:
    config = quick()
    deep = Encoder(config.pose, faithful().encoder)
    with pytest.raises((ModelError, RuntimeError)):
        Bridge(Encoder(config.emg, config.encoder), deep, config)


def test_masked_autoencoder_scores_hidden_patches_only() -> None:
    config = quick(channels=6)
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(config.emg, config.encoder), config.emg_mae)
    with torch.no_grad():
        model.head.weight.zero_()
    x = torch.randn(4, 160, 6)
    torch.manual_seed(5)
    hidden = torch.rand(4, 8).argsort(dim=1)[:, 4:]
    torch.manual_seed(5)
    loss, masked = model(x)
    energy = patchify(x, 20).square().mean(dim=2).gather(1, hidden).mean()
    assert loss.item() == masked.item() == pytest.approx(energy.item(), rel=1e-5)


def test_masked_autoencoder_does_not_feed_hidden_patches() -> None:
    config = quick(channels=6)
    torch.manual_seed(0)
    model = MaskedAutoencoder(Encoder(config.emg, config.encoder), config.emg_mae)
    x = torch.randn(1, 160, 6)
    torch.manual_seed(5)
    hidden = torch.rand(1, 8).argsort(dim=1)[0, 4:]
    changed = x.clone().reshape(1, 8, 20, 6)
    changed[:, hidden] = 0.0
    seen = []
    model.head.register_forward_hook(lambda module, args, out: seen.append(out))
    for given in (x, changed.reshape(1, 160, 6)):
        torch.manual_seed(5)
        model(given)
    assert torch.equal(seen[0], seen[1])


def test_encoder_carries_its_statistics() -> None:
    config = quick(channels=6)
    encoder = Encoder(config.emg, config.encoder)
    x = torch.randn(2, 160, 6)
    plain = encoder(x)
    encoder.scale.fill_(2.0)
    encoder.offset.fill_(1.0)
    assert torch.allclose(encoder(x * 2 + 1), plain, atol=1e-4)


def test_infonce_with_cascle_is_structured_label_smoothing() -> None:
    torch.manual_seed(0)
    logits, alpha = torch.randn(16, 16), 0.5
    targets = objectives.soft_targets(torch.rand(16, 8), 0.1)
    left = objectives.info_nce(logits) + alpha * objectives.cascle(logits, targets)
    smoothed = (torch.eye(16) + alpha * targets) / (1 + alpha)
    right = (1 + alpha) * -(smoothed * logits.log_softmax(1)).sum(1).mean()
    assert left.item() == pytest.approx(right.item(), abs=1e-5)


def test_symmetric_infonce_asks_both_ways() -> None:
    torch.manual_seed(0)
    logits = torch.randn(16, 16) + torch.arange(16.0)
    ways = (objectives.info_nce(logits) + objectives.info_nce(logits.T)) / 2
    assert objectives.info_nce(logits, symmetric=True).item() == pytest.approx(ways.item(), abs=1e-6)
    assert objectives.info_nce(logits).item() != pytest.approx(ways.item(), abs=1e-3)


def test_offdiagonal_cascle_ignores_the_own_pose() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 8, requires_grad=True)
    targets = objectives.soft_targets(torch.rand(8, 4), 0.1)
    objectives.cascle(logits, targets, "offdiag").backward()
    assert logits.grad is not None
    assert torch.all(logits.grad.diagonal() == 0)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", ["cosine", "raw"])
def test_soft_targets_sum_to_one_without_the_diagonal(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(32, 16, generator=g), dim=1)
    rows = objectives.affinity(v, v[:12], 5, kind)
    targets = objectives.soft_targets(rows, 0.1)
    assert torch.all((rows > 0).sum(1) <= 5)
    assert torch.all(rows >= 0)
    assert torch.allclose(targets.sum(1), torch.ones(32), atol=1e-6)
    assert torch.all(targets.diagonal() == 0)
    if kind == "cosine":
        assert torch.allclose(rows.norm(dim=1), torch.ones(32), atol=1e-5)


def test_affinity_refuses_foreign_centroids() -> None:
    v = torch.tensor([[1.0, 0.0]])
    with pytest.raises(ModelError, match="centroid"):
        objectives.affinity(v, torch.tensor([[-1.0, 0.0]]), 1)


def test_low_temperature_concentrates_and_high_alarms(caplog: pytest.LogCaptureFixture) -> None:
    g = torch.Generator().manual_seed(0)
    rows = objectives.affinity(torch.rand(64, 16, generator=g), torch.rand(16, 16, generator=g), 5)
    sharp = objectives.target_entropy(objectives.soft_targets(rows, 0.02))
    flat = objectives.target_entropy(objectives.soft_targets(rows, 1.0))
    assert sharp < flat <= math.log(63) + 1e-5
    assert communities.check_targets(1.0, 64)
    assert not communities.check_targets(flat, 64)
    assert "uniform" in caplog.text


def test_communities_are_deterministic_and_on_the_sphere() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    first = communities.centroids(x, 16, seed=3)
    assert first.shape == (16, 16)
    assert np.array_equal(first, communities.centroids(x, 16, seed=3))
    assert not np.array_equal(first, communities.centroids(x, 16, seed=4))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert communities.centroids(x[:40], 16, seed=3).shape == (10, 16)
    with pytest.raises(DataError):
        communities.centroids(x[:4], 2, seed=0)


def test_selection_rules_differ_in_selection_only() -> None:
    g = torch.Generator().manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(6, 4, 8, generator=g), dim=2)
    v = torch.nn.functional.normalize(torch.randn(6, 8, generator=g), dim=1)
    by_pose, by_max = objectives.similarity(q, v, "pos"), objectives.similarity(q, v, "max")
    assert torch.allclose(by_pose.diagonal(), by_max.diagonal(), atol=1e-6)
    assert torch.all(by_max >= by_pose - 1e-6)
    assert not torch.allclose(by_pose, by_max)
    one = q[:, :1]
    assert torch.allclose(objectives.similarity(one, v, "pos"), objectives.similarity(one, v, "max"), atol=1e-6)


@pytest.mark.parametrize(("tokens", "ratio", "span"), [(20, 0.75, 4), (8, 0.75, 2), (8, 1.0, 2), (5, 0.5, 9)])
def test_span_masks_hide_the_share_in_runs(tokens: int, ratio: float, span: int) -> None:
    torch.manual_seed(0)
    masks = objectives.span_mask(200, tokens, ratio, span)
    hidden = round(ratio * tokens)
    assert torch.all(masks.sum(1) == hidden)
    for row in masks.tolist():
        runs = [len(r) for r in "".join("x" if m else " " for m in row).split()]
        assert min(runs) >= min(span, hidden)
    if ratio < 1:
        assert masks.any(0).all()
        assert (~masks).any(0).all()


def test_a_fully_masked_pose_cannot_be_seen(small: Bridge) -> None:
    _, pose = _batch()
    states = torch.randn(12, 8, 64)
    masked = torch.ones(12, 8, dtype=torch.bool)
    position = small.pose.position[1:]
    outs = []
    for p in (pose, pose.flip(0) * 3):
        tokens = small.pose.embed(small.pose.patches(p))
        outs.append(small.qformer.rebuild(states, tokens, masked, position))
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0][:, 0], outs[0][:, 1])
    masked[:, 0] = False
    open_ = [
        small.qformer.rebuild(states, small.pose.embed(small.pose.patches(p)), masked, position)
        for p in (pose, pose.flip(0) * 3)
    ]
    assert not torch.allclose(open_[0], open_[1])


@pytest.mark.parametrize("separate", [False, True])
def test_queries_never_see_pose_tokens(separate: bool) -> None:
    config = _with_queries(quick(channels=6), QFormerConfig(queries=4, separate_ffn=separate))
    former = _bridge(config).qformer
    states, tokens = torch.randn(2, 4, 64), torch.randn(2, 8, 64)
    look = torch.ones(12, 12, dtype=torch.bool)
    look[:4, 4:] = False
    layer = former.layers[0]
    one = layer.rebuild(torch.cat([states, tokens], 1), 4, look)
    two = layer.rebuild(torch.cat([states, -tokens], 1), 4, look)
    assert torch.allclose(one[:, :4], two[:, :4], atol=1e-6)
    assert not torch.allclose(one[:, 4:], two[:, 4:])


def test_queries_stay_blind_while_a_pose_is_rebuilt(small: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    _, pose = _batch()
    states, masked = torch.randn(12, 8, 64), torch.zeros(12, 8, dtype=torch.bool)
    masked[:, 2:] = True
    last, told = small.qformer.layers[-1], []
    rebuild = last.rebuild

    def spied(x: torch.Tensor, queries: int, mask: torch.Tensor) -> torch.Tensor:
        told.append(rebuild(x, queries, mask))
        return told[-1]

    monkeypatch.setattr(last, "rebuild", spied)
    for p in (pose, pose.flip(0) * 3):
        small.qformer.rebuild(states, small.pose.embed(small.pose.patches(p)), masked, small.pose.position[1:])
    assert torch.equal(told[0][:, :8], told[1][:, :8])
    assert not torch.allclose(told[0][:, 8:], told[1][:, 8:])


def test_gradients_reach_the_emg_encoder_and_not_the_pose_encoder(small: Bridge) -> None:
    emg, pose = _batch()
    small.train()
    losses = small.losses(emg, pose, diversify=True)
    losses.mprl.backward(retain_graph=True)
    reached = small.emg.patch_embed.weight.grad
    assert reached is not None
    assert reached.abs().sum() > 0
    assert small.qformer.layers[0].cross.kv.weight.grad.abs().sum() > 0
    losses.total.backward()
    assert small.log_tau.grad is not None
    assert all(p.grad is None for p in small.pose.parameters())
    assert not small.pose.training
    assert losses.total.item() == pytest.approx(
        (losses.nce + 0.5 * losses.cascle + 0.5 * losses.mprl + 0.01 * objectives.query_diversity(losses.q)).item(),
        abs=1e-5,
    )


def test_temperature_stays_inside_its_bounds(small: Bridge) -> None:
    with torch.no_grad():
        small.log_tau.fill_(9.0)
    small.clamp_tau()
    assert small.tau.item() == pytest.approx(1.0)
    with torch.no_grad():
        small.log_tau.fill_(-9.0)
    small.clamp_tau()
    assert small.tau.item() == pytest.approx(0.05)


def test_centring_restores_contrast() -> None:
    config = quick(channels=6)
    model = _bridge(config)
    with torch.no_grad():
        model.pose.norm.bias.fill_(3.0)
    pose = np.random.default_rng(0).normal(size=(64, 160, 20)).astype(np.float32)
    assert prepare(model, pose, seed=0) > 0.5
    assert model.center.abs().sum() > 0
    assert abs(objectives.mean_cosine(model.vectors(torch.from_numpy(pose)))) < 0.1


def test_queries_start_as_the_linear_map_and_stay_within_reach(small: Bridge) -> None:
    world = paired(windows=64, channels=6)
    assert world.emg is not None
    prepare(small, world.pose, seed=0)
    fit_path(small, world)
    emg = torch.from_numpy(world.emg)
    with torch.no_grad():
        raw = small.path(small.emg.patches(emg))
        base = torch.nn.functional.normalize(raw, dim=2)[raw.norm(dim=2)[:, 0] > 0.25]
        emg = emg[raw.norm(dim=2)[:, 0] > 0.25]
        assert len(emg) > 20
        assert (small.queries(emg) * base).sum(2).min() > 0.99
        torch.nn.init.normal_(small.qformer.projection.weight, std=5.0)
        cosine = (small.queries(emg) * base).sum(2)
    assert cosine.min() < 0.95
    # a step of at most half the base turns it by at most 30 degrees
    assert cosine.min() > math.cos(math.radians(30)) - 1e-3


def test_the_linear_path_fits_what_is_linear(small: Bridge) -> None:
    rng = np.random.default_rng(0)
    features = rng.random((200, 24)).astype(np.float32)
    features[:, 0] = 0.0
    map_ = rng.normal(size=(24, 64))
    vectors = ((features - features.mean(0)) @ map_).astype(np.float32)
    people = np.arange(len(features)) % 5
    small.path.fit(features, vectors, people, 1e-6)
    found = ((torch.from_numpy(features) - small.path.mean) / small.path.sd) @ small.path.weight
    np.testing.assert_allclose(found.numpy(), vectors, atol=1e-2)
    noise = rng.normal(size=vectors.shape).astype(np.float32)
    small.path.fit(features, noise, people, 1e-6)
    assert small.path.weight.abs().max() < 0.2 * np.linalg.lstsq(features, noise)[0].std()
    with pytest.raises(ModelError):
        small.path.fit(np.zeros_like(features), vectors, people, 0.1)


def test_query_figures() -> None:
    same = torch.nn.functional.normalize(torch.ones(5, 4, 8), dim=2)
    assert objectives.query_cosine(same) == pytest.approx(1, abs=1e-5)
    assert objectives.query_diversity(same).item() == pytest.approx(1, abs=1e-5)
    assert objectives.query_usage(same, same[:, 0]) == pytest.approx(0, abs=1e-5)
    spread = torch.eye(4).expand(4, 4, 4)
    assert objectives.query_cosine(spread) == pytest.approx(0, abs=1e-6)
    assert objectives.query_usage(spread, torch.eye(4)) == pytest.approx(math.log(4), abs=1e-5)


def test_neighbour_mass_counts_pairs_of_one_gesture() -> None:
    targets = torch.tensor([[0, 0.8, 0.2], [0.5, 0, 0.5], [1.0, 0, 0]])
    assert objectives.neighbour_mass(targets, torch.tensor([0, 0, -1])) == pytest.approx(0.65)
    assert math.isnan(objectives.neighbour_mass(targets, torch.tensor([-1, -1, -1])))


def test_augmentation_changes_what_it_says() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 40, 8) + 0.5
    assert augment(x, AugmentConfig(), 20) is x
    gains = augment(x, AugmentConfig(gain_db=3.0), 20) / x
    assert torch.allclose(gains, gains[:, :1].expand_as(gains), atol=1e-5)
    assert (20 * gains[:, 0].log10()).std().item() == pytest.approx(3.0, rel=0.1)
    silent = (augment(x, AugmentConfig(channel_mask=0.25), 20) == 0).all(1).float().mean().item()
    assert silent == pytest.approx(0.25, abs=0.05)
    rolled = augment(x, AugmentConfig(roll=1), 20)
    shifts = [any(torch.equal(r, w.roll(s, 1)) for s in (-1, 0, 1)) for r, w in zip(rolled, x, strict=True)]
    assert all(shifts)
    assert not torch.equal(rolled, x)


def test_rebuild_reliance_compares_own_with_foreign_queries(small: Bridge) -> None:
    ratio = rebuild_reliance(small, paired(windows=32, channels=6), np.random.default_rng(0))
    assert ratio == pytest.approx(1.0, abs=0.2)
