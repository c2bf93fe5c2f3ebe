import sys
from . import continuum as _m
sys.modules[__name__] = _m
