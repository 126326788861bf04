"""Everything the learner can be told, as frozen structs; the defaults are those of the published method."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from embridge_shared.errors import ConfigError

_LEAST_READ = 2  # tokens

HeadName = Literal["embridge", "cpep", "closed", "regression"]
DEEP: Final = ("embridge", "cpep")
"""Heads with a learnt pose space."""


class _Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ElectrodeConfig(_Config, frozen=True, kw_only=True):
    """Tokens of single electrodes that know where on the arm they sit, so that one encoder reads any band.

    Attributes:
        harmonics: The angle around the arm is told as cosine and sine of its first multiples.
        angles_deg: Angle of each electrode; none spreads them evenly over the ring.
        along_mm: Distance of each from the ring along the forearm; none means that all sit on it.
    """

    harmonics: int = 4
    angles_deg: tuple[float, ...] = ()
    along_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.harmonics < 1:
            raise ConfigError("electrodes need at least one harmonic")


class SignalConfig(_Config, frozen=True, kw_only=True):
    """Shape of one modality's window.

    Attributes:
        rate_hz: Samples a second.
        channels: Electrodes, or joint angles.
        window: Samples a window.
        patch: Samples a token; divides `window`.
        clip: Standardised values are clipped to ± this.
        electrodes: One token an electrode and patch; None makes one token a patch over all channels.
        power: Tokens are made of values raised to this, signs kept; below 1 weak activity counts for more.
    """

    rate_hz: float = 2000.0
    channels: int = 16
    window: int = 4000
    patch: int = 200
    clip: float = 20.0
    electrodes: ElectrodeConfig | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if min(self.channels, self.window, self.patch) < 1 or not min(self.rate_hz, self.clip, self.power) > 0:
            raise ConfigError("rate_hz, channels, window, patch, clip and power must be positive")
        if self.window % self.patch:
            raise ConfigError(f"a window of {self.window} samples does not divide into patches of {self.patch}")
        for name in ("angles_deg", "along_mm") if self.electrodes is not None else ():
            given = len(getattr(self.electrodes, name))
            if given not in (0, self.channels):
                raise ConfigError(f"electrodes.{name} names {given} electrodes, the window has {self.channels}")

    @property
    def tokens(self) -> int:
        """Tokens a window."""
        return self.window // self.patch

    @property
    def window_s(self) -> float:
        """Length of a window, s."""
        return self.window / self.rate_hz


class EncoderConfig(_Config, frozen=True, kw_only=True):
    """Transformer shared in shape by the EMG encoder, the pose encoder and the Q-Former.

    Attributes:
        span: Tokens that one of EMG attends to, itself and those before it, so that the encoder can run a patch at a
            time; 0 lets every token see the whole window, as published. Poses are always seen whole, and so are windows
            of single electrodes' tokens.
    """

    width: int = 256
    depth: int = 4
    heads: int = 8
    mlp_ratio: int = 4
    span: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads, self.mlp_ratio) < 1 or self.width % (2 * self.heads):
            raise ConfigError(f"width {self.width} must be a positive multiple of twice the heads {self.heads}")
        if self.span < 0 or self.span == 1:
            raise ConfigError(f"span {self.span} must be 0, or tell of at least one token before", hint="Try 3.")

    @property
    def before(self) -> int:
        """Tokens a window spends on the past of the first one that is read; 0 where all are read."""
        return self.depth * (self.span - 1) if self.span else 0


class MaeConfig(_Config, frozen=True, kw_only=True):
    """Masked pre-training of one modality.

    Attributes:
        steps: Optimiser steps; 0 takes `epochs` passes instead.
        normalise_target: Reconstruct patches scaled to zero mean and unit variance each.
        summary: Weight of predicting the window's channel means from [CLS]; it gives [CLS] a loss of its own.
        target: Reconstruct the waveform of a hidden patch, or its spectrum: log amplitude a band and channel. EMG is
            noise-like and its waveform cannot be predicted; of an envelope this is the modulation spectrum.
        bands: Bands of the spectrum, equally wide; fewer where a patch is too short for them.
        band_hz: Supported band, Hz: what lies outside was not recorded; an upper end of 0 is half the rate.
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
    target: Literal["waveform", "spectrum"] = "waveform"
    bands: int = 8
    band_hz: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask ratio {self.ratio} must lie between 0 and 1")
        low, high = self.band_hz
        if self.bands < 1 or low < 0 or (high != 0 and high <= low):
            raise ConfigError(f"{self.bands} bands between {low} and {high} Hz are no spectrum")


class QFormerConfig(_Config, frozen=True, kw_only=True):
    """Queries that read the EMG tokens.

    Attributes:
        queries: Number of learnt queries M.
        cross_every: Layers whose index divides by it carry cross-attention.
        separate_ffn: Give query rows a feed-forward of their own.
        reader: Learnt queries, or the EMG encoder's summary alone, projected (CPEP).
    """

    queries: int = 16
    cross_every: int = 2
    separate_ffn: bool = False
    reader: Literal["queries", "summary"] = "queries"

    @property
    def spoken(self) -> int:
        """Vectors that speak for a window."""
        return 1 if self.reader == "summary" else self.queries


class LinearConfig(_Config, frozen=True, kw_only=True):
    """A linear path from the envelope to the pose space, on which the queries build.

    Attributes:
        l2: Weight penalty of its fit; 0 leaves the path out.
        reach: How far a query may stray from it, in lengths of it.
        features: Levels in segments of the window, or their roots and each channel's spread, which tell seen movements
            apart better across wearers and say no more of unseen ones.
        clean: While training, the path reads the windows it was fitted to, and augmentation reaches the network alone.
    """

    l2: float = 0.0
    reach: float = 0.5
    clean: bool = False
    features: Literal["levels", "rich"] = "levels"


class CascleConfig(_Config, frozen=True, kw_only=True):
    """Soft targets over the poses of a batch.

    Attributes:
        targets: From communities of poses; the same for every other pose, which is label smoothing with
            ε = alpha / (1 + alpha); or from the cosine of the poses themselves (SoftCLIP).
        model: Communities by spherical k-means, or by a Gaussian mixture whose responsibilities are compared.
        centroids: Communities N_c; fewer where the training set is small.
        keep: Nearest centroids kept in an affinity row, k_c.
        tau: Temperature of the targets, τ_s.
        affinity: Rows scaled to unit length before their product, or taken as they are.
        softmax: Over every pose, or over the others only.
    """

    targets: Literal["communities", "smoothing", "instances"] = "communities"
    model: Literal["kmeans", "gmm"] = "kmeans"
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
        shared_gain_db: Standard deviation of one gain for all channels, dB.
        channel_mask: Probability that a channel is silenced.
        channel_mask_upto: As many channels as an even draw from none to this share says are silenced besides; a window
            may so lose most of its ring.
        time_mask: Probability that a patch is silenced.
        roll: Largest rotation of the ring, electrodes; only where channels form a ring.
        ring: How many of the first channels form the ring; 0 is all.
        noise: Standard deviation of noise on each channel's level, a share of that level's own deviation in the batch.
    """

    gain_db: float = 0.0
    shared_gain_db: float = 0.0
    channel_mask: float = 0.0
    channel_mask_upto: float = 0.0
    time_mask: float = 0.0
    roll: int = 0
    ring: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if max(self.channel_mask, self.channel_mask_upto, self.time_mask) >= 1 or self.ring < 0:
            raise ConfigError("masks must leave some of the EMG open, and a ring has at least no channel")


class RegressionConfig(_Config, frozen=True, kw_only=True):
    """A network that regresses pose from EMG.

    Attributes:
        target: The window's mean posture, standardised, or its pose embedding.
        cosine: Weight of the cosine error beside the squared one.
    """

    target: Literal["posture", "embedding"] = "posture"
    cosine: float = 1.0


class SupervisedConfig(_Config, frozen=True, kw_only=True):
    """A classifier of the seen gestures.

    Attributes:
        smoothing: Label smoothing of its cross-entropy.
        dropout: In the encoder and before the head.
        features: Of the linear path it builds on, where `linear` has one: discriminants of the classes.
        shrink: How far their covariance is drawn to its diagonal.
        steps: Optimiser steps; 0 takes those of the alignment.
    """

    smoothing: float = 0.1
    dropout: float = 0.1
    features: Literal["levels", "rich"] = "rich"
    shrink: float = 0.1
    steps: int = 0


class WearerConfig(_Config, frozen=True, kw_only=True):
    """What is done with recordings of the wearer.

    Attributes:
        share: Share of calibration windows, which have labels and no glove, among the training windows.
        adapt: Unlabelled adaptation of the queries to the wearer: none, their mean, or mean and covariance (CORAL).
        shrink: How far the covariances are drawn to a multiple of the identity.
    """

    share: float = 0.5
    adapt: Literal["none", "mean", "coral"] = "none"
    shrink: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 0 <= self.shrink <= 1:
            raise ConfigError("wearer.share must lie between 0 and 1, wearer.shrink not outside")


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
        bf16_cpu: Mixed precision on a CPU too: it helps wide models on processors with bfloat16 units, small ones not.
        compile: Compile the transformer blocks; the first steps then take a minute or two.
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
        unpaired_pose: Let pose windows without EMG join the pose encoder's first stage.
        from_scratch: Align encoders that no first stage trained: a control.
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
    regression: RegressionConfig = RegressionConfig()
    supervised: SupervisedConfig = SupervisedConfig()
    wearer: WearerConfig = WearerConfig()
    center: Literal["auto", "always", "never"] = "auto"
    unpaired_pose: bool = False
    from_scratch: bool = False
    threads: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if abs(self.emg.window_s - self.pose.window_s) > 1e-6:
            raise ConfigError(
                f"EMG windows last {self.emg.window_s} s, pose windows {self.pose.window_s} s",
                hint="Choose windows of one length for both.",
            )
        self._check_span()
        if self.qformer.reader == "summary" and self.loss.lam > 0:
            raise ConfigError(
                "masked pose cannot be rebuilt from a summary alone", hint="Set loss.lam = 0, or read with queries."
            )

    @property
    def pose_encoder(self) -> EncoderConfig:
        """The encoder of poses, which sees them whole."""
        return msgspec.structs.replace(self.encoder, span=0)

    @property
    def reads(self) -> int:
        """Tokens of a window that are read: those whose past lies inside it."""
        return self.emg.tokens - self.encoder.before

    def digest(self) -> str:
        """SHA-256 of the canonical form, hex."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def _check_span(self) -> None:
        """A token that is read must not look out of its window, or a stream would answer otherwise than a window."""
        if not self.encoder.span or self.emg.electrodes is not None:
            return
        if self.reads < _LEAST_READ:
            raise ConfigError(
                f"a window of {self.emg.tokens} tokens leaves {max(self.reads, 0)} to read: "
                f"{self.encoder.depth} layers that look back {self.encoder.span - 1} spend {self.encoder.before}",
                hint=f"Lengthen the window to {(self.encoder.before + _LEAST_READ) * self.emg.patch} samples, shorten "
                "the patch, or lower encoder.span.",
            )
