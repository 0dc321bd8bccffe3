"""The overlay study: heads ablated in the order in which a lens sees an overlay."""
