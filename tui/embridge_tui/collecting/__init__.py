"""What the Collect room is made of: the form, the look before, the session, the review."""
