import sys
from . import simulation as _m
sys.modules[__name__] = _m
