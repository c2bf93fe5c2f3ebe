"""The tasks of the Transformer for stars, each a call of ``request`` and a little arithmetic, and the rivals that are made for one task alone."""
