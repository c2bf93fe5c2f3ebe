"""What to do where labels are rare: small pieces that stand alone or together, and the recipe made of them (``robust``).

``density`` and ``heteroscedastic`` weight the loss, ``rehearsal`` adds stars that need no label of the target, ``ensemble`` averages models, ``support``
knows where labels are and lets adapters act there only, ``conformal`` says how far off an answer may be, ``selection`` chooses which stars to label.
"""
