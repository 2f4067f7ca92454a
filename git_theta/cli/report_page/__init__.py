"""A report as a page and as pictures.

``cells`` arranges figures, ``charts`` and ``graph`` describe what is drawn (Vega-Lite), in the
colours of ``look``, ``drawing`` draws it, and ``page`` puts it into HTML.
"""
