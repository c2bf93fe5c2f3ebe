"""spectrakit: teaching and analysis with foundation models of stellar spectra."""
