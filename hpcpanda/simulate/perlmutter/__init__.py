"""ePIC's production at Perlmutter as a ready simulation."""
