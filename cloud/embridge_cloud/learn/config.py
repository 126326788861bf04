"""Everything the learner can be told, as frozen structs; the defaults are those of the published method."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from embridge_shared.errors import ConfigError


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SignalConfig(_Config, frozen=True, kw_only=True):
    """Shape of one modality's window.

    Attributes:
        rate_hz: Samples a second.
        channels: Electrodes, or joint angles.
        window: Samples a window.
        patch: Samples a token; divides `window`.
        clip: Standardised values are clipped to ± this.
    """

    rate_hz: float = 2000.0
    channels: int = 16
    window: int = 4000
    patch: int = 200
    clip: float = 20.0

    def __post_init__(self) -> None:
        if min(self.channels, self.window, self.patch) < 1 or not self.rate_hz > 0 or not self.clip > 0:
            raise ConfigError("rate_hz, channels, window, patch and clip must be positive")
        if self.window % self.patch:
            raise ConfigError(f"a window of {self.window} samples does not divide into patches of {self.patch}")

    @property
    def tokens(self) -> int:
        """Tokens a window."""
        return self.window // self.patch

    @property
    def window_s(self) -> float:
        """Length of a window, s."""
        return self.window / self.rate_hz


class EncoderConfig(_Config, frozen=True, kw_only=True):
    """Transformer shared in shape by the EMG encoder, the pose encoder and the Q-Former."""

    width: int = 256
    depth: int = 4
    heads: int = 8
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.mlp_ratio) < 1 or self.width % (2 * self.heads):
            raise ConfigError(f"width {self.width} must be a positive multiple of twice the heads {self.heads}")


class MaeConfig(_Config, frozen=True, kw_only=True):
    """Masked pre-training of one modality.

    Attributes:
        steps: Optimiser steps; 0 takes `epochs` passes instead.
        normalise_target: Reconstruct patches scaled to zero mean and unit variance each.
        summary: Weight of predicting the window's channel means from [CLS]; it gives [CLS] a loss of its own.
    """

    ratio: float = 0.5
    decoder_depth: int = 2
    decoder_width: int = 128
    decoder_heads: int = 4
    epochs: int = 100
    steps: int = 0
    batch: int = 256
    lr: float = 5e-4
    dropout: float = 0.1
    normalise_target: bool = True
    summary: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask ratio {self.ratio} must lie between 0 and 1")


class QFormerConfig(_Config, frozen=True, kw_only=True):
    """Queries that read the EMG tokens.

    Attributes:
        queries: Number of learnt queries M.
        cross_every: Layers whose index divides by it carry cross-attention.
        separate_ffn: Give query rows a feed-forward of their own.
    """

    queries: int = 16
    cross_every: int = 2
    separate_ffn: bool = False


class LinearConfig(_Config, frozen=True, kw_only=True):
    """A linear path from the envelope to the pose space, on which the queries build.

    Attributes:
        l2: Weight penalty of its fit; 0 leaves the path out.
        reach: How far a query may stray from it, in lengths of it.
    """

    l2: float = 0.0
    reach: float = 0.5


class CascleConfig(_Config, frozen=True, kw_only=True):
    """Soft targets from pose communities.

    Attributes:
        centroids: k-means centroids N_c; fewer where the training set is small.
        keep: Nearest centroids kept in an affinity row, k_c.
        tau: Temperature of the targets, τ_s.
        affinity: Rows scaled to unit length before their product, or taken as they are.
        softmax: Over every pose, or over the others only.
    """

    centroids: int = 64
    keep: int = 5
    tau: float = 0.1
    affinity: Literal["cosine", "raw"] = "cosine"
    softmax: Literal["full", "offdiag"] = "full"


class MprlConfig(_Config, frozen=True, kw_only=True):
    """Masked pose reconstruction from the queries: share of tokens masked, in contiguous spans."""

    ratio: float = 0.75
    span_tokens: int = 4


class LossConfig(_Config, frozen=True, kw_only=True):
    """The alignment loss InfoNCE + alpha CASCLe + lam MPRL.

    Attributes:
        tau_init: Start of the learnt temperature, clamped to [tau_min, tau_max].
        symmetric: Also contrast pose with EMG.
        select: "pos" reads the query nearest to the true pose, "max" the nearest for every pair.
        diversity: Weight of the penalty on equal queries, in force while their usage is below 1 nat.
    """

    tau_init: float = 0.02
    tau_min: float = 0.01
    tau_max: float = 0.2
    symmetric: bool = False
    select: Literal["pos", "max"] = "pos"
    alpha: float = 0.5
    lam: float = 0.5
    diversity: float = 0.01
    cascle: CascleConfig = CascleConfig()
    mprl: MprlConfig = MprlConfig()


class AugmentConfig(_Config, frozen=True, kw_only=True):
    """What is done to training EMG.

    Attributes:
        gain_db: Standard deviation of one gain a channel, dB.
        channel_mask: Probability that a channel is silenced.
        time_mask: Probability that a patch is silenced.
        roll: Largest rotation of the ring, electrodes; only where channels form a ring.
    """

    gain_db: float = 0.0
    channel_mask: float = 0.0
    time_mask: float = 0.0
    roll: int = 0


class AlignConfig(_Config, frozen=True, kw_only=True):
    """Second stage.

    Attributes:
        steps: Optimiser steps; 0 takes `epochs` passes instead.
        min_gap_s: Two windows of one session in a batch start at least so far apart.
        min_participants: Wanted in a batch; a warning says where the set has fewer.
        validate_every: Steps between validations; 0 validates at the end only.
        keep: Weights kept: the last, or those best on the validation participants' seen gestures.
    """

    epochs: int = 40
    steps: int = 0
    batch: int = 256
    lr_emg: float = 2e-4
    lr_rest: float = 4e-4
    min_gap_s: float = 4.0
    min_participants: int = 64
    validate_every: int = 0
    keep: Literal["last", "best"] = "last"


class OptimiserConfig(_Config, frozen=True, kw_only=True):
    """AdamW with warm-up and cosine decay, for every stage.

    Attributes:
        bf16: Mixed precision on an accelerator.
        bf16_cpu: Mixed precision on a CPU too; slower on most.
        compile: Compile the transformer blocks; the first steps then take a minute.
    """

    weight_decay: float = 0.05
    warmup: float = 0.05
    clip_norm: float = 1.0
    bf16: bool = True
    bf16_cpu: bool = False
    compile: bool = False


class EvalConfig(_Config, frozen=True, kw_only=True):
    """Zero-shot and probe settings."""

    k: int = 10
    bootstrap: int = 1000
    probe_l2: float = 1e-2


class LearnConfig(_Config, frozen=True, kw_only=True):
    """A whole training run.

    Attributes:
        center: Subtract the train mean of pose embeddings: always, never, or where their mean cosine exceeds 0.5.
        threads: CPU threads of the run; 0 leaves them as they are.
        device: "auto" takes an accelerator where there is one.
    """

    name: str = "faithful"
    emg: SignalConfig = SignalConfig()
    pose: SignalConfig = SignalConfig(rate_hz=100.0, channels=20, window=200, patch=10)
    encoder: EncoderConfig = EncoderConfig()
    emg_mae: MaeConfig = MaeConfig()
    pose_mae: MaeConfig = MaeConfig()
    qformer: QFormerConfig = QFormerConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    linear: LinearConfig = LinearConfig()
    align: AlignConfig = AlignConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    evaluate: EvalConfig = EvalConfig()
    center: Literal["auto", "always", "never"] = "auto"
    threads: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if abs(self.emg.window_s - self.pose.window_s) > 1e-6:
            raise ConfigError(
                f"EMG windows last {self.emg.window_s} s, pose windows {self.pose.window_s} s",
                hint="Choose windows of one length for both.",
            )

    def digest(self) -> str:
        """SHA-256 of the canonical form, hex."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
