"""Whose arm it is: anatomy, strength and habits of one simulated person."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm.anatomy import MUSCLES, action_matrix, mixing_matrix
from embridge_shared.hand import LIMITS, N_JOINTS, REST, clamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """How much people differ; 0 everywhere makes them all alike.

    Attributes:
        angle_sd_deg: Where around the arm a muscle lies.
        depth_sd: Relative depth of a muscle.
        gain_sd: Log of how much of a muscle's activity reaches the skin.
        strategy_sd: Log of how much a muscle takes of each joint it moves.
        strength_sd: Log of the overall signal.
        shape_sd_deg: Personal offset of a joint in the gestures made.
        rest_sd_deg: Personal offset of a joint at rest.
    """

    angle_sd_deg: float = 10.0
    depth_sd: float = 0.15
    gain_sd: float = 0.40
    strategy_sd: float = 0.35
    strength_sd: float = 0.35
    shape_sd_deg: float = 7.0
    rest_sd_deg: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wearer:
    """One person.

    Attributes:
        circumference_mm: Of the forearm where the band sits.
        fat_mm: Skin and fat between electrode and muscle.
        angle_deg: Angle of each muscle, (M,).
        depth_mm: Depth of each muscle below the fat, (M,).
        gain: Strength of each muscle's signal, (M,).
        falloff: Exponent with which a signal fades over distance.
        actions: Weight of each joint in each muscle's drive, (M, 20).
        mixing: How activity spreads between muscles, (M, M).
        tonic: Activity of each muscle at rest, (M,).
        strength_uv: RMS of full activity 10 mm from the electrode, µV.
        grip: How hard a fingertip presses the thumb, as a share of full effort.
        lead_s: By how much EMG precedes the movement it causes (30-100 ms: Cavanagh and Komi 1979).
        fatigability: How fast contraction tires the muscles; 1 is typical.
        rest: Posture of the relaxed hand, (20,), rad.
        shape: Personal offset of the shapes made, (20,), rad; smaller shapes get less of it.
        amplitude: How far a shape is carried, 1 is all the way.
        move_s: Duration of a movement into a shape, s.
        reaction_s: From a prompt to the first movement, s.
        tremor_rad: Amplitude of physiological tremor, rad.
    """

    circumference_mm: float
    fat_mm: float
    angle_deg: NDArray[np.float64] = field(repr=False)
    depth_mm: NDArray[np.float64] = field(repr=False)
    gain: NDArray[np.float64] = field(repr=False)
    falloff: float
    actions: NDArray[np.float64] = field(repr=False)
    mixing: NDArray[np.float64] = field(repr=False)
    tonic: NDArray[np.float64] = field(repr=False)
    strength_uv: float
    grip: float
    lead_s: float
    fatigability: float
    rest: NDArray[np.float64] = field(repr=False)
    shape: NDArray[np.float64] = field(repr=False)
    amplitude: float
    move_s: float
    reaction_s: float
    tremor_rad: float

    @classmethod
    def random(cls, seed: int, population: Population | None = None) -> Wearer:
        """Draw a person.

        Args:
            seed: The same seed is the same person.
            population: How much people differ.
        """
        people = population or Population()
        rng = np.random.default_rng([seed, 0xF0])
        m = len(MUSCLES)
        offsets = rng.normal(0.0, np.deg2rad(people.rest_sd_deg), N_JOINTS)
        return cls(
            circumference_mm=float(np.clip(rng.normal(255, 18), 210, 310)),
            fat_mm=float(np.clip(rng.gamma(5.0, 0.6), 1.0, 7.0)),
            angle_deg=np.array([x.angle_deg for x in MUSCLES]) + rng.normal(0, people.angle_sd_deg, m),
            depth_mm=np.array([x.depth_mm for x in MUSCLES]) * np.exp(rng.normal(0, people.depth_sd, m)),
            gain=np.exp(rng.normal(0, people.gain_sd, m)),
            falloff=float(rng.uniform(1.8, 2.3)),
            actions=action_matrix() * np.exp(rng.normal(0, people.strategy_sd, (m, N_JOINTS))),
            mixing=mixing_matrix(
                enslaving=float(rng.uniform(0.10, 0.25)),
                cocontraction=float(rng.uniform(0.04, 0.15)),
                stabilising=float(rng.uniform(0.20, 0.40)),
            ),
            tonic=rng.gamma(1.5, 0.003, m),
            strength_uv=float(330.0 * np.exp(rng.normal(0, people.strength_sd))),
            grip=float(rng.uniform(0.20, 0.40)),
            lead_s=float(rng.uniform(0.040, 0.080)),
            fatigability=float(np.exp(rng.normal(0, 0.4))),
            rest=clamp(REST + offsets),
            shape=rng.normal(0.0, np.deg2rad(people.shape_sd_deg), N_JOINTS),
            amplitude=float(rng.uniform(0.85, 1.05)),
            move_s=float(rng.uniform(0.25, 0.55)),
            reaction_s=float(rng.uniform(0.22, 0.45)),
            tremor_rad=float(np.deg2rad(rng.uniform(0.05, 0.2))),
        )

    def effort(self, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each joint is from rest towards its limit, stiffening at the end of the range.

        Args:
            angles: (..., 20), rad.

        Returns:
            (..., 20), 0 at rest, about 1 at the limits, negative in extension.
        """
        away = angles - self.rest
        room = np.where(away > 0, LIMITS[:, 1] - self.rest, self.rest - LIMITS[:, 0])
        share = away / room
        effort: NDArray[np.float64] = share * (0.75 + 0.25 * share**2)
        return effort
