"""Catalogues of data: what the dispatcher asks of one, whichever it is."""
