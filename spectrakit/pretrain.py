import sys
from . import pretraining as _m
sys.modules[__name__] = _m
