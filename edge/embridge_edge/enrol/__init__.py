"""Enrolment: a wearer's own gestures, from guided capture to the decoder that knows them.

Nothing here shows anything: capture and tests tell what happens as events, which a command or a screen renders.
"""
