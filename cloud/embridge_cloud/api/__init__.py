"""The HTTP interface: who may ask what, how much, and what is answered."""
