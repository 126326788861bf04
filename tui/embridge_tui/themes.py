"""Themes: dark, light, one that does without red and green, one of high contrast."""

from __future__ import annotations

from typing import Final

from textual.theme import Theme

THEMES: Final = (
    Theme(
        name="embridge-dark",
        primary="#5ba4d9",
        secondary="#7f9fb5",
        accent="#e0a458",
        success="#7fc98f",
        warning="#e0a458",
        error="#e06c75",
        foreground="#dde3e8",
        background="#101418",
        surface="#171d23",
        panel="#1f2830",
        dark=True,
    ),
    Theme(
        name="embridge-light",
        primary="#1f5f8b",
        secondary="#55707f",
        accent="#8a5a00",
        success="#2d7d46",
        warning="#8a5a00",
        error="#b3261e",
        foreground="#1b2328",
        background="#f7f9fa",
        surface="#eef2f4",
        panel="#dfe6ea",
        dark=False,
    ),
    # Blue, orange and yellow stay apart for everybody (Okabe and Ito's palette).
    Theme(
        name="embridge-sight",
        primary="#56b4e9",
        secondary="#999999",
        accent="#f0e442",
        success="#56b4e9",
        warning="#f0e442",
        error="#e69f00",
        foreground="#eeeeee",
        background="#101010",
        surface="#191919",
        panel="#242424",
        dark=True,
    ),
    Theme(
        name="embridge-contrast",
        primary="#ffffff",
        secondary="#ffffff",
        accent="#ffff00",
        success="#00ff66",
        warning="#ffff00",
        error="#ff6666",
        foreground="#ffffff",
        background="#000000",
        surface="#000000",
        panel="#202020",
        dark=True,
    ),
)
DEFAULT: Final = THEMES[0].name
